"""The counts of a log: right, and the same wherever the log is."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from contract.artifact import Predictions
from contract.predictions.counts import N_HOURS, Stats, stats
from contract.predictions.file import LogError
from contract.predictions.log import PredictionLog
from contract.predictions.outbox import Outbox
from contract.predictions.read import EVERYTHING, Window
from contract.predictions.settings import LogSettings
from tests.logged import GAS, MODEL, append, deliver, describe

ELSEWHERE = "postgresql://user:secret@127.0.0.1:1/db"


@pytest.fixture
def log(log) -> PredictionLog:
    describe(log)
    return log


@pytest.fixture(params=["file", "database"])
def count(request, path):
    """Give what counts all that the log at `path` holds by then, in either place."""
    url = request.getfixturevalue("postgres").url if request.param == "database" else ""

    def count_it(window: Window = EVERYTHING) -> Stats:
        if url:
            deliver(path, url)
        return stats(LogSettings(prediction_log=str(path), database_url=url), window)

    return count_it


def set_column(path: Path, table: str, column: str, values: dict[str, object]) -> None:
    """Set one column of rows, by their ids."""
    with closing(sqlite3.connect(path)) as connection:
        statement = f"UPDATE {table} SET {column} = ? WHERE id = ?"
        connection.executemany(statement, [(value, key) for key, value in values.items()])
        connection.commit()


def as_logged(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_predictions_are_counted_by_source_and_model(log, count):
    append(log, [GAS] * 3, source="batch", first=10)
    append(log, [GAS] * 2, source="api", first=-5)
    append(log, [GAS], source="api", model="ffffffffffff", first=7)

    found = count()

    assert found.n_predictions == 6
    assert found.by_source == {"api": 3, "batch": 3}
    assert [(each.version, each.n_predictions) for each in found.by_model] == [
        (MODEL, 5),
        ("ffffffffffff", 1),
    ]
    first, last = found.by_model
    assert first.first <= first.last <= last.first == last.last <= datetime.now(UTC)
    assert (found.prediction.min, found.prediction.max) == (-5, 12)
    assert found.prediction.mean == pytest.approx((10 + 11 + 12 - 5 - 4 + 7) / 6)
    assert found.n_bytes > 1000


def test_hours_are_the_last_24_up_to_the_present_one(log, path, count):
    logged = append(log, [GAS] * 4)
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    ago = [timedelta(0), timedelta(hours=3), timedelta(hours=3), timedelta(hours=30)]
    times = [as_logged(now - each) for each in ago]
    set_column(path, "predictions", "time", dict(zip(logged, times, strict=True)))

    hours = count().by_hour

    assert len(hours) == N_HOURS
    assert hours[-1].hour - hour in (timedelta(0), timedelta(hours=1))  # if the hour just passed
    found = {each.hour: each.n_predictions for each in hours if each.n_predictions}
    assert found == {hour: 1, hour - timedelta(hours=3): 2}


def test_latency_is_what_so_many_predictions_stay_within(log, path, count):
    logged = append(log, [GAS] * 200)
    latency_ms = np.random.default_rng(1).permutation(np.arange(1.0, 201.0))
    set_column(
        path, "predictions", "latency_ms", dict(zip(logged, latency_ms.tolist(), strict=True))
    )

    latency = count().latency

    assert (latency.p50_ms, latency.p95_ms, latency.p99_ms) == (100.0, 190.0, 198.0)


def test_rejected_values_are_counted_by_field_and_rule_with_their_shares(log, count):
    append(log, [GAS])
    log.reject("form", {("area", "out_of_range"): 3, ("heating", "missing"): 1})
    log.reject("api", {("area", "out_of_range"): 3, ("", "unknown_field"): 1})
    log.reject("ready", {("", "attempt"): 0})

    found = count()

    assert found.n_rejected == 8
    told = [(each.field, each.rule, each.n_values, each.share) for each in found.rejected]
    assert told == [
        ("area", "out_of_range", 6, 0.75),
        ("", "unknown_field", 1, 0.125),
        ("heating", "missing", 1, 0.125),
    ]


def test_gaps_are_counted_by_feature(log, count):
    append(log, [GAS, GAS | {"area": None}, GAS | {"area": None, "heating": None}])
    append(log, [GAS | {"heating": "null"}, {"rooms": 2}, {}])

    found = count()

    assert found.gaps == {"area": 2, "heating": 1}
    assert (found.n_without_features, found.n_hashed) == (1, 0)


def test_rows_with_hashes_are_counted(log, count):
    append(log, [GAS, GAS | {"area": "hash:0123"}, GAS | {"area": "x", "heating": "hash:0123"}])

    assert count().n_hashed == 2


def test_truths_have_a_mean_absolute_error(log, path, count):
    logged = append(log, [GAS] * 4)  # predictions 0, 1, 2, 3
    with closing(sqlite3.connect(path)) as connection:
        truths = [(logged[1], 3.0), (logged[2], 1.0), ("01a20000-0000-7000-8000-000000000000", 9.0)]
        statement = "INSERT INTO truths (id, time, truth) VALUES (?, '2026-11-23T08:00:00.000Z', ?)"
        connection.executemany(statement, truths)
        connection.commit()

    found = count()

    assert (found.n_truths, found.mean_absolute_error) == (2, 1.5)


def test_window_holds_for_every_figure(log, path, count):
    old, new = append(log, [GAS | {"area": None}]), append(log, [GAS], first=5, source="form")
    log.reject("form", {("area", "missing"): 1})
    set_column(path, "predictions", "time", {old[0]: "2026-10-01T08:00:00.000Z"})

    since = count(Window(since=datetime(2026, 11, 1, tzinfo=UTC)))
    until = count(Window(until=datetime(2026, 11, 1, tzinfo=UTC)))

    assert (since.by_source, since.gaps, since.prediction.min) == ({"form": 1}, {}, 5)
    assert (until.by_source, until.gaps, until.prediction.max) == ({"api": 1}, {"area": 1}, 0)
    assert (since.n_rejected, until.n_rejected) == (1, 0)
    assert until.by_hour[-1].hour == datetime(2026, 11, 1, tzinfo=UTC)
    assert count(Window(last=1)).by_source == {"form": 1}
    assert len(new) == 1


def test_empty_log_has_no_figures(log, count):
    log.reject("ready", {("", "attempt"): 0})

    found = count()

    assert (found.n_predictions, found.by_source, found.by_model) == (0, {}, [])
    assert (found.latency, found.prediction, found.mean_absolute_error) == (None, None, None)
    assert (found.n_rejected, found.rejected, found.gaps, found.n_truths) == (0, [], {}, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_prediction_that_is_no_number_breaks_no_figure(log, count, value):
    y_pred = np.array([value, 1.0])
    about = {"model": MODEL, "source": "api", "request_id": "r-1", "latency_ms": 1.0}
    log.append([json.dumps(GAS)] * 2, Predictions(y_pred, y_pred, y_pred), **about)

    found = count()

    assert found.n_predictions == 2
    assert found.prediction.min == 1.0
    assert json.loads(found.model_dump_json())["n_predictions"] == 2


def test_delivery_is_told_where_a_database_is_set(log, path, postgres):
    settings = LogSettings(prediction_log=str(path), database_url=postgres.url)
    append(log, [GAS])
    deliver(path, postgres.url)
    append(log, [GAS] * 2)
    with closing(Outbox(path, settings.database.name)) as outbox:
        outbox.say("the host is not known here.")
        seq = outbox.next_rows("predictions", 1)[0][0]
        outbox.set_apart("predictions", seq, "too large")

    found = stats(settings)

    assert (found.log, found.n_predictions) == (settings.database.name, 1)
    assert found.delivery.target == settings.database.name
    assert (found.delivery.n_waiting, found.delivery.n_undeliverable) == (1, 1)
    assert 0 < found.delivery.oldest_s < 60
    assert found.delivery.problem == "the host is not known here."
    assert stats(settings, local=True).n_predictions == 3


def test_without_a_database_there_is_no_delivery(log, path):
    append(log, [GAS])

    assert stats(LogSettings(prediction_log=str(path))).delivery is None


def test_database_is_counted_though_the_local_file_is_none_of_ours(log, path, postgres):
    append(log, [GAS])
    deliver(path, postgres.url)
    other = path.with_name("other.db")
    other.write_text("not a log " * 100)

    found = stats(LogSettings(prediction_log=str(other), database_url=postgres.url))

    assert found.n_predictions == 1
    assert "not a database" in found.delivery.problem


def test_local_file_is_counted_though_the_database_is_away(log, path):
    append(log, [GAS])

    found = stats(LogSettings(prediction_log=str(path), database_url=ELSEWHERE), local=True)

    assert (found.n_predictions, found.delivery.n_waiting) == (1, 2)


def test_log_that_does_not_exist_is_an_error(path):
    with pytest.raises(LogError, match="does not exist"):
        stats(LogSettings(prediction_log=str(path)))
