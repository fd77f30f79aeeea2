"""What answered predictions survive on their way to PostgreSQL: kills, stops and frosts."""

import asyncio
import json
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import psutil
import psycopg2
from psycopg2.extensions import connection

from benchmarks.load import OUR_SETTINGS, Server, ask, p99, row_as_json, serving
from benchmarks.report import Section, make_table, verdict
from contract.artifact import read_manifest
from contract.predictions.migration import migrate
from contract.predictions.settings import DatabaseAddress
from contract.predictions.turn import holder_of
from tests.postgres import Postgres

logger = logging.getLogger(__name__)

N_ANSWERS, N_OF_EACH = 140_000, 5
QUICK_ANSWERS = 28_000
RATE = 500.0  # requests a second, some eighth of what the server bears
N_CLIENTS = 16
CALM_S = 2.0  # between two faults
LIMIT_S = 60.0  # for rows to come at all
SEED = 20261101
NO_FAULT = "(none, as long)"  # its ratio tells how much is chance
WHY_TOGETHER = (
    f"The ratio of `{NO_FAULT}`, spans of the same length in which nothing is done, tells how much "
    "of the others is chance. The p99 rises where a process starts on the processors that also "
    "answer: PostgreSQL, a worker; a shipper has one that waits to follow it. A killed worker also "
    "takes its connections along, whose clients come back to the other."
)
WHY_APART = (
    "There one processor bears two workers and the shippers. Of a killed worker the kernel takes "
    "14 ms of it to clear the memory away, and 6 ms to copy the next; that one warms up behind all "
    "others. In these 50 ms the clients of the dead connect to the other worker: ten slow answers "
    "are the hundredth part of such a span. The clients and PostgreSQL have the other processor."
)


@dataclass(frozen=True)
class Answered:
    """One request; times are those of the monotonic clock."""

    due_s: float  # when it was to be sent
    seconds: float  # from then to its answer
    id: str  # empty if the connection broke before the answer


@dataclass(frozen=True)
class Fault:
    kind: str
    began_s: float
    ended_s: float  # the cause is gone
    back_s: float  # from then until a row that was logged after it is in the table


@dataclass(frozen=True)
class Run:
    """One load with its faults."""

    answers: list[Answered]
    faults: list[Fault]
    stored: list[str]  # the ids that PostgreSQL has
    drain_s: float  # after the last answer, until the outbox was empty
    stolen_s: float  # of the processors, by other guests of the same host


class Site:
    """A server under load, its shipper and its database."""

    def __init__(self, server: Server, postgres: Postgres):
        self.server, self.postgres = server, postgres

    def kill_worker(self) -> None:
        oldest, *_ = psutil.Process(self.server.process.pid).children()
        oldest.send_signal(signal.SIGKILL)  # another takes its place

    def kill_shipper(self) -> None:
        os.kill(holder_of(self.server.log_path).pid, signal.SIGKILL)

    def wait_for_row_after(self, moment: float) -> None:
        """Wait until the table has a row that was logged after the moment, in epoch seconds."""
        give_up = time.monotonic() + LIMIT_S
        query = "SELECT count(*) FROM predictions WHERE time > to_timestamp(%s)"
        while time.monotonic() < give_up:
            # one connection for all looks, since each new one takes some 10 ms of a processor
            with suppress(psycopg2.OperationalError), closing(self._connect()) as database:
                cursor = database.cursor()
                while time.monotonic() < give_up:
                    cursor.execute(query, (moment,))
                    if cursor.fetchone()[0]:
                        return
                    time.sleep(0.02)
            time.sleep(0.02)  # it is not there yet
        raise RuntimeError(f"no row came within {LIMIT_S:.0f} s of the end of a fault")

    def _connect(self) -> connection:
        database = psycopg2.connect(self.postgres.url())
        database.autocommit = True
        return database


def faults_of(site: Site) -> dict[str, tuple[Callable[[], None], float, Callable[[], None]]]:
    """Name what begins a fault, the seconds that it lasts, and what ends it."""
    postgres = site.postgres
    return {
        "a worker killed": (site.kill_worker, 0.0, do_nothing),
        "the shipper killed": (site.kill_shipper, 0.0, do_nothing),
        "PostgreSQL stopped": (postgres.stop, 1.5, postgres.start),
        "PostgreSQL restarted": (postgres.stop, 0.0, postgres.start),
        "PostgreSQL killed": (postgres.kill, 1.5, postgres.start),
        "PostgreSQL frozen": (postgres.freeze, 7.0, postgres.thaw),
        NO_FAULT: (do_nothing, 0.0, do_nothing),
    }


def do_nothing() -> None:
    pass


def measure_faults(quick: bool) -> Section:
    """Let clients ask at a steady pace while one fault follows the other; then count."""
    together = _measure(quick, None)
    processors = sorted(os.sched_getaffinity(0))
    apart = _measure(quick, {*processors[len(processors) // 2 :]})
    return Section(
        "17 The prediction log under faults",
        (
            f"{N_CLIENTS} clients at {RATE:.0f} requests a second, faults in mixed order. Times "
            "count from when a request was due. Back: from the end of the cause until a newer row "
            "was in the table, the longest. Ratio: p99 of all answers during faults of a kind / "
            "that of all others; median: of each fault by itself, the middle one.",
            "**All on the same processors**: clients, server and PostgreSQL.",
            *_parts(together),
            WHY_TOGETHER,
            "**The server on a processor of its own**, as where clients and database are other "
            "machines.",
            *_parts(apart),
            WHY_APART,
        ),
    )


def _measure(quick: bool, own: set[int] | None) -> Run:
    """Run all faults once; the server and its shipper have these processors to themselves."""
    n_answers, n_of_each = (QUICK_ANSWERS, 1) if quick else (N_ANSWERS, N_OF_EACH)
    everywhere = os.sched_getaffinity(0)
    others = everywhere - own or everywhere if own else everywhere
    with ExitStack() as stack:
        stack.enter_context(_on(others))
        stolen_before_s = _stolen_s()
        postgres = stack.enter_context(Postgres())
        migrate(DatabaseAddress(postgres.url()), read_manifest().contract)
        with _on(own or everywhere):
            server = stack.enter_context(serving(*OUR_SETTINGS, DATABASE_URL=postgres.url()))
        clients = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        asked = clients.submit(ask_steadily, server.port, n_answers, row_as_json())
        faults = _make_faults(Site(server, postgres), n_of_each, asked)
        answers, drain_s = asked.result(), _seconds_to_drain(server)
        with closing(psycopg2.connect(postgres.url())) as database, database.cursor() as cursor:
            cursor.execute("SELECT id::text FROM predictions")
            stored = [row_id for (row_id,) in cursor]
    return Run(answers, faults, stored, drain_s, _stolen_s() - stolen_before_s)


def _stolen_s() -> float:
    return psutil.cpu_times().steal


@contextmanager
def _on(processors: set[int]) -> Iterator[None]:
    """Let what is started meanwhile run on these processors alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _make_faults(site: Site, n_of_each: int, asked: Future) -> list[Fault]:
    kinds = faults_of(site)
    names = [*kinds] * n_of_each
    random.Random(SEED).shuffle(names)  # noqa: S311, an order
    done = []
    time.sleep(2 * CALM_S)
    for name in names:
        if asked.done():
            raise RuntimeError(f"the load ended after {len(done)} of {len(names)} faults")
        begin, lasts_s, end = kinds[name]
        began_s = time.monotonic()
        begin()
        time.sleep(lasts_s)
        end()
        ended_s, ended_at = time.monotonic(), time.time()
        site.wait_for_row_after(ended_at)
        done.append(Fault(name, began_s, ended_s, time.monotonic() - ended_s))
        logger.info("%s: back after %.2f s", name, done[-1].back_s)
        time.sleep(2 * CALM_S)
    return done


def _seconds_to_drain(server: Server) -> float:
    began = time.monotonic()
    while time.monotonic() - began < LIMIT_S:
        told = _metric(server.port, "prediction_log_undelivered_rows")
        if told == 0:
            return time.monotonic() - began
        time.sleep(0.05)
    raise RuntimeError(f"{told:.0f} rows are still undelivered after {LIMIT_S:.0f} s")


def _metric(port: int, name: str) -> float:
    _, body = ask(port, "/metrics")
    lines = body.decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def _parts(run: Run) -> Iterator[str]:
    """Give the table of a run, what it counted, and its verdicts."""
    faults, stored = run.faults, run.stored
    ids = [each.id for each in run.answers if each.id]
    table, ratios = _compare(run)
    yield table
    yield (
        f"{len(ids):,} answers; {len(run.answers) - len(ids)} requests had none as their worker "
        f"was killed, of which {len({*stored} - {*ids})} were committed. The outbox was empty "
        f"{run.drain_s:.1f} s after the last answer. Meanwhile the host gave "
        f"{run.stolen_s:.1f} s of these processors to others, which shows in every p99."
    )
    yield "\n".join(
        [
            verdict("answered rows that are not in PostgreSQL", len({*ids} - {*stored}), 0),
            verdict("rows that are there twice", len(stored) - len({*stored}), 0),
            verdict("p99 during a fault / without, the worst", max(ratios), 1.1),
            verdict("back after a fault, s, the longest", max(f.back_s for f in faults), 2),
        ]
    )


def _compare(run: Run) -> tuple[str, list[float]]:
    """Make a table of the p99 during each kind of fault, and give the ratios of the real ones."""
    due, seconds = (
        np.array([getattr(each, name) for each in run.answers]) for name in ("due_s", "seconds")
    )
    was_answered = np.array([bool(each.id) for each in run.answers])
    is_calm = was_answered & ~np.any([_within(due, fault) for fault in run.faults], axis=0)
    calm_ms = 1000 * p99(seconds[is_calm])
    rows = [["none", "", int(is_calm.sum()), "", f"{calm_ms:.2f}", "", ""]]
    ratios = []
    for kind in sorted({fault.kind for fault in run.faults}):
        of_kind = [fault for fault in run.faults if fault.kind == kind]
        spans = [was_answered & _within(due, fault) for fault in of_kind]
        during = np.any(spans, axis=0)
        ms = 1000 * p99(seconds[during])
        usual_ms = 1000 * float(np.median([p99(seconds[span]) for span in spans]))
        back_s = max(fault.back_s for fault in of_kind)
        told = [len(of_kind), int(during.sum()), f"{back_s:.2f}", f"{ms:.2f}"]
        rows.append([kind, *told, ms / calm_ms, usual_ms / calm_ms])
        if kind != NO_FAULT:
            ratios.append(ms / calm_ms)
    head = ["fault", "times", "answers during it", "back, s", "p99 ms", "ratio", "ratio, median"]
    return make_table(head, rows), ratios


def _within(moments: np.ndarray, fault: Fault) -> np.ndarray:
    """Say which moments fall into a fault and its aftermath, which are CALM_S at the least."""
    end_s = max(fault.ended_s + fault.back_s, fault.began_s + CALM_S)
    return (moments >= fault.began_s) & (moments <= end_s)


def ask_steadily(port: int, n_answers: int, body: bytes) -> list[Answered]:
    """Post at a steady pace until so many were answered."""
    return asyncio.run(_ask_steadily(port, n_answers, body))


async def _ask_steadily(port: int, n_answers: int, body: bytes) -> list[Answered]:
    began = time.monotonic()
    each = n_answers // N_CLIENTS
    found = await asyncio.gather(
        *(_client(port, each, body, began + i / RATE) for i in range(N_CLIENTS))
    )
    return [answer for answers in found for answer in answers]


async def _client(port: int, n_answers: int, body: bytes, due_s: float) -> list[Answered]:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    sent = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
    answers, streams, n_answered = [], None, 0
    while n_answered < n_answers:
        await asyncio.sleep(due_s - time.monotonic())
        row_id = ""
        try:
            streams = streams or await asyncio.open_connection("127.0.0.1", port)
            row_id, is_last = await _ask(*streams, sent)
            if is_last:
                streams[1].close()
                streams = None
        except (OSError, asyncio.IncompleteReadError):
            streams = None
        answers.append(Answered(due_s, time.monotonic() - due_s, row_id))
        n_answered += bool(row_id)
        due_s += N_CLIENTS / RATE
    return answers


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes
) -> tuple[str, bool]:
    """Give the id of the answer, and whether the connection ends with it."""
    writer.write(sent)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    row_id = json.loads(await reader.readexactly(length))["id"]
    return row_id, b"\r\nconnection: close" in head
