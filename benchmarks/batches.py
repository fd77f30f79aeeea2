"""What a file costs beside the bare limit: read the CSV, run the model, write the CSV."""

import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil
import pyarrow as pa
import pyarrow.csv

from benchmarks.load import OUR_SETTINGS, Server, serving
from benchmarks.report import Section, make_table, verdict
from contract.artifact import load_model
from contract.encoding import encode
from ops.simulate import SEED, simulate

N_REPEATS = 5
N_ROWS, N_MANY_ROWS = 100_000, 1_000_000
READ_BYTES = 2**20
POLL_S = 0.02


def measure_batch(quick: bool) -> Section:
    """Upload a CSV over HTTP and read the answer, with the log and without."""
    n_rows, n_many = (2_000, 5_000) if quick else (N_ROWS, N_MANY_ROWS)
    n_repeats = 1 if quick else N_REPEATS
    with TemporaryDirectory(prefix="bench-") as folder:
        table = _write_table(Path(folder) / "rows.csv", n_rows)
        long_table = _write_table(Path(folder) / "many.csv", n_many)
        bare = n_rows / median(_bare_s(table) for _ in range(n_repeats))
        bare_many = n_many / median(_bare_s(long_table) for _ in range(min(n_repeats, 3)))
        with serving(*OUR_SETTINGS, WORKERS="1", PREDICTION_LOG="off") as server:
            plain = n_rows / median(_upload_s(server, table) for _ in range(n_repeats))
            rise_mb, plain_many_s = _rise_mb(server, long_table)
        with serving(*OUR_SETTINGS, WORKERS="1") as server:
            logged = n_rows / median(_upload_s(server, table) for _ in range(n_repeats))
            logged_rise_mb, logged_many_s = _rise_mb(server, long_table)
    many = {"without the log": n_many / plain_many_s, "logged": n_many / logged_many_s}
    header = ["what", f"rows/s at {n_rows:,}", f"rows/s at {n_many:,}", "memory's rise, MiB"]
    rows = [
        ["bare: read, run, write, one thread", f"{bare:,.0f}", f"{bare_many:,.0f}", ""],
        ["over HTTP, without the log", f"{plain:,.0f}", f"{many['without the log']:,.0f}", rise_mb],
        ["over HTTP, logged", f"{logged:,.0f}", f"{many['logged']:,.0f}", logged_rise_mb],
    ]
    return Section(
        "12 A file",
        (
            f"One worker; medians of {n_repeats}, the long file once; the answer is read to its "
            "end by a client on the same processors. The rise is that of the worker's resident "
            "memory at its peak, over what it was before the long file.",
            make_table(header, rows),
            "\n".join(
                [
                    verdict("rows/s without the log, in 1,000", plain / 1e3, 300, at_least=True),
                    verdict("rows/s logged, in 1,000", logged / 1e3, 150, at_least=True),
                    *(
                        verdict(f"without the log / bare, {n:,} rows", ratio, 0.5, at_least=True)
                        for n, ratio in (
                            (n_rows, plain / bare),
                            (n_many, many["without the log"] / bare_many),
                        )
                    ),
                    verdict(
                        f"rows/s at {n_many:,} / at {n_rows:,}, without the log",
                        many["without the log"] / plain,
                        1,
                        at_least=True,
                    ),
                    verdict("memory's rise in MiB", max(rise_mb, logged_rise_mb), 150),
                ]
            ),
        ),
    )


def _write_table(path: Path, n_rows: int) -> Path:
    simulate(n_rows, SEED).to_csv(path, index=False)
    return path


def _bare_s(table: Path) -> float:
    """Read with Arrow, run the model, write with Arrow, with no check; one thread each."""
    model = load_model()
    contract = model.manifest.contract
    pa.set_cpu_count(1)
    began = time.perf_counter()
    rows = pa.csv.read_csv(table, pa.csv.ReadOptions(use_threads=False))
    columns = {name: rows[name].combine_chunks() for name in contract.names()}
    told = model.predict(encode(columns, contract))
    for name in ("prediction", "lower", "upper"):
        rows = rows.append_column(name, pa.array(getattr(told, name)))
    pa.csv.write_csv(rows, pa.BufferOutputStream())
    return time.perf_counter() - began


def _upload_s(server: Server, table: Path) -> float:
    began = time.perf_counter()
    with table.open("rb") as file:
        headers = {"Content-Type": "text/csv", "Content-Length": str(table.stat().st_size)}
        connection = HTTPConnection("127.0.0.1", server.port, timeout=600, blocksize=READ_BYTES)
        connection.request("POST", "/batch_predict", file, headers)
        answer, n_lines = connection.getresponse(), 0
        while part := answer.read(READ_BYTES):
            n_lines += part.count(b"\n")
        connection.close()
    seconds = time.perf_counter() - began
    with table.open("rb") as file:
        n_sent = sum(1 for _ in file)
    if n_lines != n_sent:
        raise RuntimeError(f"{n_lines:,} lines came back of {n_sent:,}")
    return seconds


def _rise_mb(server: Server, table: Path) -> tuple[float, float]:
    """Give by how much the worker's memory rose meanwhile, and the upload's seconds."""
    (worker,) = psutil.Process(server.process.pid).children()
    before, peak, stop = worker.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not stop.wait(POLL_S):
            peak[0] = max(peak[0], worker.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        seconds = _upload_s(server, table)
    finally:
        stop.set()
        watcher.join()
    return (peak[0] - before) / 2**20, seconds
