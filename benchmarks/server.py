"""What the server costs beside Flask answering a constant, and how it bears a rush."""

import sqlite3
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from multiprocessing import get_context
from statistics import median

from benchmarks.load import (
    CONSTANT,
    OUR_SETTINGS,
    answered_until_the_end,
    cost_of_a_request,
    load_until_shed,
    load_with_wrk,
    p99,
    row_as_json,
    serving,
    slow_clients,
    times_of,
)
from benchmarks.report import Section, make_table, verdict

PLAIN = ["--worker-class=gthread", "--workers=2", "--threads=4", "--keep-alive=5", "--preload"]
PLAIN_CONSTANT, OUR_CONSTANT = "a constant, gunicorn's own worker", "a constant, our worker"
CONSTANTS = (PLAIN_CONSTANT, OUR_CONSTANT)
N_ROUNDS = 5
CONNECTIONS = (1, 8)
ROUND_S = 4
N_RUSH = 160
RUSH_S = 10
N_SLOW = 64
SLOW_S = 5
N_STOPS = 20
N_IN_FLIGHT = 8
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SLOW = {
    "nothing sent": b"",
    "half a head": HEAD[:-10],
    "half a body": HEAD + b"Content-Length: 100\r\n\r\n{",
    "half a large body": HEAD + b"Content-Length: 1000000\r\n\r\n{",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n50\r\n{",
}


def measure_json(quick: bool) -> Section:
    """Post one row again and again: the server's CPU time beside that of a constant answer."""
    n_rounds, seconds, body = (1, 1, row_as_json()) if quick else (N_ROUNDS, ROUND_S, row_as_json())
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    with ExitStack() as stack:
        servers = {
            PLAIN_CONSTANT: serving(*PLAIN, CONSTANT),
            OUR_CONSTANT: serving(*OUR_SETTINGS, CONSTANT),
            "prediction, not logged": serving(*OUR_SETTINGS, PREDICTION_LOG="off"),
            "prediction": serving(*OUR_SETTINGS),
        }
        running = {name: stack.enter_context(server) for name, server in servers.items()}
        for server in running.values():
            load_with_wrk(server.port, 8, 1, body)  # warm
        for _ in range(n_rounds):
            for n_connections in CONNECTIONS:
                for name, server in running.items():
                    figures = cost_of_a_request(server, n_connections, seconds, body)
                    found.setdefault((name, n_connections), []).append(figures)
    rows = {
        key: [median(column) for column in zip(*each, strict=True)] for key, each in found.items()
    }
    ours = rows["prediction", 8]
    verdicts = [
        verdict(
            f"{what} / that of {name}, 8 connections", ours[place] / rows[name, 8][place], limit
        )
        for place, what, limit in ((0, "CPU a request", 1.8), (1, "p99", 3))
        for name in CONSTANTS
    ]
    header = ["answers", "connections", "CPU ms a request", "p99 ms", "requests/s"]
    return Section(
        "7 One prediction by JSON",
        (
            f"Medians of {n_rounds} runs of {seconds} s, the servers in turn, two workers each, on "
            "the processors that also run wrk. CPU time is that of all processes of a server; "
            "requests/s and p99 depend on how the kernel spreads connections over workers.",
            make_table(
                header, [[*key, f"{cpu:.3f}", ms, round(n)] for key, (cpu, ms, n) in rows.items()]
            ),
            "\n".join(verdicts),
            "What was tried is told in docs/decisions/0006-the-server.md.",
        ),
    )


def measure_start(quick: bool) -> Section:
    """Start the server in turn with the constant app; then weigh it under load."""
    starts: dict[str, list[float]] = {"a constant": [], "prediction": []}
    for _ in range(1 if quick else N_ROUNDS):
        with serving(*PLAIN, CONSTANT) as server:
            starts["a constant"].append(server.start_s)
        with serving(*OUR_SETTINGS, WORKERS="2") as server:
            starts["prediction"].append(server.start_s)
            load_with_wrk(server.port, 32, 1, row_as_json())
            memory_mb = server.memory_mb()
    constant_s, ours_s = map(median, starts.values())
    return Section(
        "8 Start and memory",
        (
            f"From the command to the first answer, medians of {len(starts['prediction'])}: "
            f"{ours_s:.2f} s; a constant under gunicorn's own worker {constant_s:.2f} s. "
            "Memory of the master and two workers after a second of load, shared pages once.",
            verdict("start / that of a constant", ours_s / constant_s, 3)
            + "\n"
            + verdict("memory in MiB", memory_mb, 200),
        ),
    )


def measure_rush(quick: bool) -> Section:
    """Let more clients ask at once than are let in, and see how the others fare."""
    seconds = 2 if quick else RUSH_S
    with serving(*OUR_SETTINGS) as server, _process() as client:
        load = client.submit(load_until_shed, server.port, N_RUSH, seconds, row_as_json())
        time.sleep(0.5)
        health_s = times_of(server.port, "/health", seconds - 1)
        answers = load.result()
    by_status = {status: [s for each, s in answers if each == status] for status, _ in answers}
    rows = [
        [status, round(len(times) / seconds), f"{median(times):.3f}", f"{p99(times):.3f}"]
        for status, times in sorted(by_status.items())
    ]
    return Section(
        "9 A rush",
        (
            f"{N_RUSH} clients for {seconds} s, each with its next request as soon as the last is "
            "answered, whether let in or turned away; the clients run on the same processors.",
            make_table(["status", "answers/s", "median s", "p99 s"], rows),
            verdict("p99 of the accepted in s", p99(by_status[200]), 1)
            + "\n"
            + verdict("p99 of `/health` in s", p99(health_s), 0.1),
        ),
    )


def measure_slow(quick: bool) -> Section:
    """Hold connections on which a request has only begun to come, and ask beside them."""
    seconds, body, rows = 1 if quick else SLOW_S, row_as_json(), []
    with serving(*OUR_SETTINGS) as server:
        for name, begun in SLOW.items():
            with slow_clients(server.port, N_SLOW, begun):
                health_s = times_of(server.port, "/health", seconds)
                predict_s = times_of(server.port, "/predict", seconds, body)
            rows.append([name, f"{p99(health_s):.4f}", f"{p99(predict_s):.4f}"])
    return Section(
        "10 Slow clients",
        (
            f"{N_SLOW} connections on which no more comes; p99 of others that ask meanwhile.",
            make_table(["what came", "`/health` s", "`/predict` s"], rows),
            verdict("p99 of `/health` in s, the worst", max(float(row[1]) for row in rows), 0.1),
        ),
    )


def measure_stop(quick: bool) -> Section:
    """Send SIGTERM under load, and look for each answer and its row in the log."""
    n_stops, n_answered, n_lost, n_unlogged, seconds = 3 if quick else N_STOPS, 0, 0, 0, []
    for _ in range(n_stops):
        with serving(*OUR_SETTINGS) as server, ThreadPoolExecutor(N_IN_FLIGHT) as clients:
            body = row_as_json()
            asking = [
                clients.submit(answered_until_the_end, server.port, body)
                for _ in range(N_IN_FLIGHT)
            ]
            time.sleep(0.5)
            began = time.perf_counter()
            server.stop()
            seconds.append(time.perf_counter() - began)
            told = [each.result() for each in asking]
            ids = {row_id for each in told for row_id in each["ids"]}
            n_answered += len(ids)
            n_lost += sum(each["n_lost"] for each in told)
            with closing(sqlite3.connect(server.log_path)) as log:
                n_unlogged += len(
                    ids - {row_id for (row_id,) in log.execute("SELECT id FROM predictions")}
                )
    return Section(
        "11 SIGTERM under load",
        (
            f"{n_stops} times, {N_IN_FLIGHT} clients that ask without a pause; {n_answered:,} "
            f"answers; the server was gone after {median(seconds):.2f} s (median).",
            verdict("requests without an answer", n_lost, 0)
            + "\n"
            + verdict("answers without a row in the log", n_unlogged, 0),
        ),
    )


def _process() -> ProcessPoolExecutor:
    """Give a process for clients whose own work would slow those that we time here."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
