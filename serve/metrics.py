"""What Prometheus asks for, summed over all worker processes."""

import os
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from contract.predictions.outbox import Lag

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """Counts of one server. With PROMETHEUS_MULTIPROC_DIR set, of all its workers together."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        requests = Counter(
            "requests_total",
            "Requests answered",
            ["route", "method", "status"],
            registry=self._own,
        )
        latency = Histogram(
            "request_seconds",
            "Time from the whole request to its answer",
            ["route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self._own,
        )
        rows = Counter("predicted_rows_total", "Rows predicted", ["source"], registry=self._own)
        problems = Counter(
            "rejected_values_total",
            "Values outside the contract",
            ["source", "rule"],
            registry=self._own,
        )
        self._model = Gauge(
            "model_in_service",
            "Workers that serve this version",
            ["version"],
            registry=self._own,
            multiprocess_mode="livesum",
        )
        self._refused = Gauge(
            "model_refused",
            "Workers that refuse the artifact on disk",
            registry=self._own,
            multiprocess_mode="livesum",
        )
        # looking up a label costs more than counting
        self._requests, self._latency = cache(requests.labels), cache(latency.labels)
        self._rows, self._problems = cache(rows.labels), cache(problems.labels)
        self._version = ""

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests(route, method, str(status)).inc()
        self._latency(route).observe(seconds)

    def count_rows(self, source: str, n_rows: int) -> None:
        self._rows(source).inc(n_rows)

    def count_problems(self, source: str, rule: str, n: int) -> None:
        self._problems(source, rule).inc(n)

    def show_model(self, version: str, is_refused: bool) -> None:
        """Tell which version this worker serves."""
        if version != self._version:
            if self._version:
                self._model.labels(self._version).set(0)
            self._model.labels(version).set(1)
            self._version = version
        self._refused.set(is_refused)

    def text(self, lag: "Lag | None" = None, n_aside: int = 0) -> bytes:
        """Give all counts, how many files of the prediction log were set aside as damaged, and how
        far its delivery is behind, if there is one.
        """
        told = self._own
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            told = CollectorRegistry()
            MultiProcessCollector(told)
        aside = _gauge("prediction_log_files_set_aside", "To be recovered", n_aside)
        return generate_latest(told) + aside + _lag_as_text(lag)


def _lag_as_text(lag: "Lag | None") -> bytes:
    """Write two gauges that no worker counts: they are read from the log's file."""
    if lag is None:
        return b""
    rows = "Rows of the log that the database does not have yet"
    oldest = "How long the oldest of them has waited"
    return _gauge("prediction_log_undelivered_rows", rows, lag.n_rows) + _gauge(
        "prediction_log_oldest_undelivered_seconds", oldest, lag.oldest_s
    )


def _gauge(name: str, meaning: str, value: float | None) -> bytes:
    told = "NaN" if value is None else round(value, 3)
    return f"# HELP {name} {meaning}\n# TYPE {name} gauge\n{name} {told}\n".encode()
