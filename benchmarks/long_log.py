"""A long prediction log: exported, delivered to PostgreSQL from its beginning, and monitored."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.report import Section, make_table, verdict
from benchmarks.runs import ROOT, Cost
from contract.artifact import Predictions, read_manifest
from contract.monitoring import Report
from contract.predictions.file import connect
from contract.predictions.log import ROWS_A_COMMIT, PredictionLog
from contract.predictions.migration import migrate
from contract.predictions.settings import DatabaseAddress
from ops.simulate import simulate
from tests.postgres import Postgres

N_ROWS, QUICK_ROWS = 1_000_000, 20_000
N_SHIPPED, QUICK_SHIPPED = 200_000, 10_000
SEED = 20261102
EXPORT, SHIP = ("ops.predictions", "export"), ("ops.predictions", "ship")


def measure_long_log(quick: bool) -> Section:
    """Export a long log in each format; then let a database catch up."""
    n_rows, n_shipped = (QUICK_ROWS, QUICK_SHIPPED) if quick else (N_ROWS, N_SHIPPED)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Postgres() as postgres:
        log = Path(folder) / "long.db"
        write_log(log, n_rows)
        size_mb = log.stat().st_size / 2**20
        costs = {
            kind: run_ops(EXPORT, "--output", f"{folder}/log.{kind}", PREDICTION_LOG=str(log))
            for kind in ("parquet", "csv", "jsonl")
        }
        behind = Path(folder) / "behind.db"
        write_log(behind, n_shipped)
        migrate(DatabaseAddress(postgres.url()), read_manifest().contract)
        shipped = run_ops(SHIP, PREDICTION_LOG=str(behind), DATABASE_URL=postgres.url())
        n_there = postgres.execute("SELECT count(*) FROM predictions")[0][0]
    table = [[kind, cost.wall_s, f"{cost.peak_mb:.0f}"] for kind, cost in costs.items()]
    parquet = costs["parquet"]
    return Section(
        "18 A long prediction log",
        (
            f"{n_rows:,} rows, {size_mb:.0f} MB as SQLite; the seconds are those of the whole "
            f"program. Delivered: {n_there:,} of {n_shipped:,} rows by "
            "`python -m ops.predictions ship`, start-up included; PostgreSQL shares the "
            "processors.",
            make_table(["format", "seconds", "peak memory, MB"], table),
            verdict("export to parquet, s", parquet.wall_s, 20)
            + "\n"
            + verdict("export to parquet, peak memory in MiB", parquet.peak_mb, 500)
            + "\n"
            + verdict(
                "rows delivered a second, in 1,000", n_there / shipped.wall_s / 1000, 20, True
            ),
        ),
    )


def measure_monitor(quick: bool) -> Section:
    """Let the monitor read a long log, truths of a part of its rows included."""
    n_rows = QUICK_ROWS if quick else N_ROWS
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log, report = Path(folder) / "long.db", Path(folder) / "report.json"
        write_log(log, n_rows)
        attach_truths(log, n_rows // 10)
        page = ("--report", str(report), "--html", f"{folder}/page.html", "--no-alerts")
        cost = run_ops(("ops.monitor",), *page, codes=(0, 1), PREDICTION_LOG=str(log))
        told = Report.model_validate_json(report.read_bytes())
    return Section(
        "20 The monitor on a long log",
        (
            f"{told.n_rows:,} rows, the truth known of {n_rows // 10:,}; report and page by "
            "`python -m ops.monitor --html page.html`, start-up included.",
            verdict("rows read, of those logged", told.n_rows / n_rows, 1, at_least=True)
            + "\n"
            + verdict("report and page, s", cost.wall_s, 60)
            + "\n"
            + verdict("peak memory in MiB", cost.peak_mb, 500),
        ),
    )


def attach_truths(path: Path, n_rows: int) -> None:
    """Say of the newest rows what really came."""
    with closing(connect(path)) as log:
        log.execute(
            "INSERT INTO truths (id, time, truth) SELECT id, time, prediction + 1 FROM predictions "
            "ORDER BY seq DESC LIMIT ?",
            [n_rows],
        )


def write_log(path: Path, n_rows: int) -> None:
    """Log so many simulated rows, as the server does."""
    contract, version = read_manifest().contract, read_manifest().version
    rng = np.random.default_rng(SEED)
    texts = [
        json.dumps({name: row[name] for name in contract.names()})
        for row in simulate(1_000, SEED).to_dict("records")
    ]
    with closing(PredictionLog(path)) as log:
        log.describe(version, contract.model_dump_json())
        for first in range(0, n_rows, ROWS_A_COMMIT):
            n = min(ROWS_A_COMMIT, n_rows - first)
            told = rng.normal(66, 15, n)
            features = [texts[i] for i in rng.integers(len(texts), size=n)]
            log.append(
                features,
                Predictions(told, told - 9, told + 9),
                model=version,
                source="batch",
                request_id=f"chunk-{first}",
                latency_ms=1.0,
            )


def run_ops(
    program: Sequence[str], *arguments: str, codes: Collection[int] = (0,), **settings: str
) -> Cost:
    """Run a program of ours, which ends with one of the codes, and give its cost."""
    command = [sys.executable, "-IS", str(ROOT / "benchmarks/measured.py")]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        costs = Path(folder) / "costs.jsonl"
        measured = {"BENCHMARK_PYTHON": sys.executable, "BENCHMARK_COSTS": str(costs)}
        run = subprocess.run(
            [*command, "-m", *program, *arguments],
            cwd=ROOT,
            env=os.environ | measured | settings,
            stdout=subprocess.DEVNULL,
        )
        if run.returncode not in codes:
            raise RuntimeError(f"{' '.join(program)} ended with code {run.returncode}.")
        return Cost(**json.loads(costs.read_text()))
