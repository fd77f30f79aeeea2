"""The outbox: all that waits is given in order, and nothing leaves the log before it may."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from contract.artifact import Predictions
from contract.predictions import copying
from contract.predictions.damage import files_aside
from contract.predictions.file import LogError, connect, open_log, when_free
from contract.predictions.log import PredictionLog
from contract.predictions.outbox import NOTHING, TABLES, UNKNOWN, Lag, Outbox, lag_of
from contract.predictions.pruning import ALL
from contract.predictions.tables import COLUMNS

ROOT = Path(__file__).parents[3]
TARGET = "db.example.org:5432/flats"
ABOUT = {"model": "0a1b2c3d4e5f", "source": "api", "request_id": "r-1", "latency_ms": 1.5}
ROW = '{"area": 72.0, "heating": "gas"}'


@pytest.fixture
def outbox(path) -> Iterator[Outbox]:
    with closing(Outbox(path, TARGET)) as outbox:
        yield outbox


def append(log: PredictionLog, n_rows: int = 1) -> list[str]:
    y_pred = np.arange(n_rows, dtype=np.float64)
    return log.append([ROW] * n_rows, Predictions(y_pred, y_pred - 1, y_pred + 1), **ABOUT)


def add_old(path: Path, n_rows: int, days: float) -> list[str]:
    """Log predictions of some days ago, a millisecond apart."""
    first = datetime.now(UTC) - timedelta(days=days)
    times = [first + timedelta(milliseconds=i) for i in range(n_rows)]
    ids = [_id_of(time, i) for i, time in enumerate(times)]
    about = ("0a1b2c3d4e5f", "api", "r-1", ROW, 1.0, 0.0, 2.0, 1.5)
    texts = [time.isoformat(timespec="milliseconds")[:-6] + "Z" for time in times]
    rows = [(row_id, text, *about) for row_id, text in zip(ids, texts, strict=True)]
    names = ", ".join(COLUMNS["predictions"])
    marks = ", ".join("?" * len(rows[0]))
    with closing(open_log(path, sync_full=False)) as connection:
        when_free(connection, "BEGIN IMMEDIATE")  # workers may be at it
        connection.executemany(f"INSERT INTO predictions ({names}) VALUES ({marks})", rows)
        connection.execute("COMMIT")
    return ids


def _id_of(time: datetime, number: int) -> str:
    digits = f"{int(time.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-{number:012x}"


def add_truth(path: Path, row_id: str) -> None:
    with closing(open_log(path, sync_full=False)) as connection:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
        connection.execute(
            "INSERT INTO truths (id, time, truth) VALUES (?, ?, ?)", (row_id, now, 1.0)
        )


def select(path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def ids_in(path: Path, table: str = "predictions") -> list[str]:
    return [row_id for (row_id,) in select(path, f"SELECT id FROM {table} ORDER BY seq")]


def take(outbox: Outbox, table: str = "predictions", limit: int = 1000) -> list[str]:
    """Take the next rows as delivered; give their ids."""
    rows = outbox.next_rows(table, limit)
    if rows:
        outbox.delivered(table, rows[-1][0])
    outbox.save()
    return [row[1] for row in rows]


def deliver_all(outbox: Outbox) -> None:
    for table in TABLES:
        while take(outbox, table):
            pass


def wait_for(condition, seconds: float = 10) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def test_rows_are_given_in_the_order_of_their_commits_and_not_twice(path, log, outbox):
    ids = append(log, 3) + append(log, 2)

    assert take(outbox, limit=4) == ids[:4]
    assert take(outbox, limit=4) == ids[4:]
    assert take(outbox) == []
    assert take(Outbox(path, TARGET)) == []


def test_row_is_given_with_the_columns_of_the_database(log, outbox):
    log.describe("0a1b2c3d4e5f", '{"features": []}')
    (row_id,) = append(log)
    log.reject("form", {("area", "missing"): 2})

    (row,) = outbox.next_rows("predictions", 10)
    assert row[:2] == (1, row_id)
    assert row[3:] == ("0a1b2c3d4e5f", "api", "r-1", ROW, 0.0, -1.0, 1.0, 1.5)
    (model,) = outbox.next_rows("models", 10)
    assert (model[1], model[3]) == ("0a1b2c3d4e5f", '{"features": []}')
    (rejection,) = outbox.next_rows("rejections", 10)
    assert rejection[3:] == ("form", "area", "missing", 2)


def test_another_target_gets_all_rows_anew(path, log, outbox):
    ids = append(log, 3)
    take(outbox)

    assert take(Outbox(path, "other:5432/flats")) == ids


def test_what_was_not_written_down_is_given_again(path, log):
    ids = append(log, 3)
    outbox = Outbox(path, TARGET)
    outbox.next_rows("predictions", 10)
    outbox.delivered("predictions", 3)
    outbox.close()

    assert take(outbox) == ids


def test_without_a_log_nothing_waits(path, outbox):
    assert not outbox.has_news()
    assert outbox.next_rows("predictions", 10) == []
    assert outbox.lag() == Lag(0, 0)
    assert not outbox.say("no route")
    assert outbox.prune(0) == 0
    assert lag_of(path, TARGET) == (Lag(0, 0), "")
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("content", [b"", b"table"])
def test_file_that_is_no_log_yet_is_left_as_it_is(content, path, outbox):
    with closing(sqlite3.connect(path)) as connection:
        if content:
            connection.execute("CREATE TABLE flats (rent REAL)")
    before = path.read_bytes()

    assert not outbox.has_news()
    assert outbox.next_rows("predictions", 10) == []
    assert lag_of(path, TARGET) == (Lag(0, 0), "")
    assert path.read_bytes() == before


def test_commits_of_others_are_news_once(log, outbox):
    append(log)
    assert outbox.has_news()
    assert not outbox.has_news()

    append(log)
    assert outbox.has_news()
    take(outbox)
    assert not outbox.has_news()  # our own writing is none


def test_lag_counts_what_waits_in_all_tables_and_tells_for_how_long(path, outbox):
    add_old(path, 5, days=1)
    with closing(PredictionLog(path)) as log:
        append(log, 2)
        log.reject("form", {("area", "missing"): 2})
    outbox.say("no route")

    lag = outbox.lag()
    assert lag.n_rows == 8
    assert lag.oldest_s == pytest.approx(86_400, abs=60)
    told, problem = lag_of(path, TARGET)
    assert (told.n_rows, problem) == (8, "no route")

    take(outbox, limit=5)
    assert lag_of(path, TARGET)[0].n_rows == 3
    assert lag_of(path, TARGET)[0].oldest_s < 60
    deliver_all(outbox)
    outbox.say("")
    assert lag_of(path, TARGET) == (Lag(0, 0), "")


def test_lag_is_told_while_another_process_writes(log, path):
    append(log)
    with closing(connect(path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert lag_of(path, TARGET)[0].n_rows == 1
        writer.execute("ROLLBACK")


def test_lag_is_told_by_looking_at_a_few_rows_alone(path, log, outbox):
    append(log, 3)
    plans = []
    with closing(connect(path)) as connection:
        for query in (
            "SELECT seq, time FROM predictions WHERE seq > 1 ORDER BY seq LIMIT 1",
            "SELECT max(seq) FROM predictions",
        ):
            plans += connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert all("SEARCH" in plan[3] for plan in plans)


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm")])
def test_file_that_takes_the_place_of_another_is_given_from_its_first_row(
    suffixes, path, log, outbox
):
    before = append(log, 3)
    assert take(outbox, limit=2) == before[:2]
    outbox.next_rows("predictions", 1)
    for suffix in suffixes:
        Path(f"{path}{suffix}").rename(f"{path}{suffix}.moved")
    after = append(log, 2)
    outbox.delivered("predictions", 3)
    outbox.save()

    assert outbox.has_news()
    assert take(outbox) == after
    append(log)
    assert ids_in(path)[:2] == after
    assert select(path, "PRAGMA integrity_check") == [("ok",)]
    kept = [each.suffix for each in path.parent.glob("*.damaged-*")]
    assert kept == ([] if "-wal" in suffixes else [".wal"])  # which SQLite would delete


def test_number_of_an_old_file_is_not_written_into_its_successor(path, log, outbox):
    append(log, 100)
    rows = outbox.next_rows("predictions", 100)
    for file in path.parent.iterdir():
        file.unlink()
    append(log, 1)
    outbox.delivered("predictions", rows[-1][0])
    outbox.save()

    assert select(path, "SELECT * FROM deliveries") == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_damaged_log_is_an_error_until_a_new_one_is_begun(share, path, outbox):
    with closing(PredictionLog(path)) as log:
        append(log, 3000)
    os.truncate(path, int(share * path.stat().st_size))

    def rows() -> list[str]:
        try:
            return [row[1] for row in outbox.next_rows("predictions", 5000)]
        except LogError as error:
            assert str(path) in str(error)
            return []

    assert len(rows()) < 3000
    with closing(PredictionLog(path)) as log:
        ids = append(log, 2)
        wait_for(lambda: rows() == ids)


@pytest.mark.parametrize("n_pages", [0, 1, 4])
def test_log_that_is_cut_while_nobody_appends_is_set_aside(n_pages, path, outbox, caplog):
    with closing(PredictionLog(path)) as log:
        append(log, 500)
    with closing(PredictionLog(path)) as log:
        append(log, 5)
        deliver_all(outbox)
        os.truncate(path, 4096 * n_pages)

        assert not outbox.has_news()

        (aside,) = files_aside(path)
        assert f"is now {aside}" in caplog.text
        assert Path(f"{aside}.wal").stat().st_size > 0
        assert lag_of(path, TARGET) == (NOTHING, "")
        ids = append(log, 3)
        assert take(outbox) == ids


def test_pruning_and_copies_of_the_wal_are_no_damage(path, log, outbox, monkeypatch):
    monkeypatch.setattr(copying, "CHECKPOINT_PAGES", 20)
    add_old(path, 3_000, days=40)
    for _ in range(30):
        append(log, 30)
        deliver_all(outbox)
        outbox.prune(30, 200)
        append(log)
        outbox.has_news()

    assert len(ids_in(path)) == 930
    assert files_aside(path) == []


@pytest.mark.parametrize("what", ["cut", "emptied", "first page lost", "only its WAL"])
def test_nobody_says_that_nothing_waits_in_a_log_that_cannot_be_read(what, path, log):
    append(log, 100)
    with closing(connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(RESTART)")
    log.reject("form", {("area", "missing"): 1})
    wal_bytes = Path(f"{path}-wal").stat().st_size
    if what == "only its WAL":
        path.unlink()
    elif what == "first page lost":
        with path.open("r+b") as file:
            file.write(b"x" * 4096)
    else:
        os.truncate(path, 4096 if what == "cut" else 0)

    lag, problem = lag_of(path, TARGET)

    assert lag == UNKNOWN
    assert str(path) in problem
    assert Path(f"{path}-wal").stat().st_size == wal_bytes


def test_undeliverable_row_is_kept_and_passed(path, log, outbox):
    ids = append(log, 3)

    outbox.next_rows("predictions", 3)
    outbox.set_apart("predictions", 1, "no such number")

    assert take(outbox) == ids[1:]
    kept = select(path, "SELECT target, table_name, seq, error FROM undeliverable")
    assert kept == [(TARGET, "predictions", 1, "no such number")]


def test_old_rows_are_pruned_once_delivered(path, outbox):
    ids = add_old(path, 700, days=40) + add_old(path, 10, days=20)
    take(outbox, limit=600)

    assert outbox.prune(30) == 600
    assert ids_in(path) == ids[600:]
    deliver_all(outbox)
    assert outbox.prune(30) == 100
    assert ids_in(path) == ids[700:]
    assert outbox.prune(30) == 0


@pytest.mark.parametrize("days", [100_000, float("inf")])
def test_rows_may_be_kept_for_ever(days, path, outbox):
    add_old(path, 3, days=40)
    deliver_all(outbox)

    assert outbox.prune(days) == 0


def test_pruning_takes_no_more_than_it_may_at_once(path, outbox):
    add_old(path, 700, days=40)
    deliver_all(outbox)

    assert [outbox.prune(30, 300) for _ in range(4)] == [300, 300, 99, 0]


def test_newest_row_stays_so_that_no_number_is_given_twice(path, outbox):
    ids = add_old(path, 3, days=40)
    deliver_all(outbox)

    assert outbox.prune(30) == 2
    assert ids_in(path) == ids[2:]
    assert add_old(path, 1, days=0) == take(outbox)


def test_undeliverable_rows_are_never_pruned(path, outbox):
    ids = add_old(path, 5, days=40)
    take(outbox, limit=1)
    outbox.set_apart("predictions", 2, "no such number")
    deliver_all(outbox)

    assert outbox.prune(30) == 3
    assert ids_in(path) == [ids[1], ids[4]]


def test_truth_goes_with_its_prediction_and_not_before(path, outbox):
    ids = add_old(path, 5, days=40)
    for row_id in (ids[0], ids[1], ids[4]):
        add_truth(path, row_id)
    add_truth(path, add_old(path, 1, days=0)[0])
    take(outbox, limit=1)
    outbox.set_apart("predictions", 2, "no such number")
    deliver_all(outbox)

    outbox.prune(30)

    assert ids_in(path, "truths")[:2] == [ids[1], ids_in(path)[-1]]


def test_rejections_are_pruned_and_contracts_of_models_stay(path, log, outbox):
    log.describe("0a1b2c3d4e5f", "{}")
    append(log)
    for _ in range(3):
        log.reject("form", {("area", "missing"): 2})
    deliver_all(outbox)
    time.sleep(0.002)  # ids are of earlier milliseconds

    assert outbox.prune(0) == 2
    assert len(ids_in(path, "rejections")) == 1
    assert select(path, "SELECT version FROM models") == [("0a1b2c3d4e5f",)]


def test_row_of_a_clock_that_went_wrong_keeps_no_others_from_being_pruned(path, outbox):
    ids = add_old(path, 1, days=-9000) + add_old(path, 3, days=40) + add_old(path, 1, days=0)
    deliver_all(outbox)

    assert outbox.prune(30) == 3
    assert ids_in(path) == [ids[0], ids[4]]


def test_without_a_target_all_old_rows_are_pruned(path):
    ids = add_old(path, 5, days=40) + add_old(path, 1, days=0)
    with closing(Outbox(path, None)) as outbox:
        assert outbox.prune(30) == 5

    assert ids_in(path) == ids[5:]


@pytest.mark.parametrize("limit", [5_000, ALL])
def test_pruning_gives_the_disk_its_space_back(limit, path, log, outbox):
    add_old(path, 20_000, days=40)
    ids = append(log, 100)
    deliver_all(outbox)
    size = path.stat().st_size

    while outbox.prune(30, limit):
        pass

    assert path.stat().st_size < size / 20
    assert ids_in(path) == ids
    assert select(path, "PRAGMA integrity_check") == [("ok",)]


def test_appends_hardly_wait_for_pruning(path, log):
    add_old(path, 40_000, days=40)
    append(log)
    waits, stop = [], threading.Event()

    def append_on() -> None:
        while not stop.is_set():
            began_s = time.perf_counter()
            append(log)
            waits.append(time.perf_counter() - began_s)
            time.sleep(0.002)

    program = f"""if True:
        from pathlib import Path
        from contract.predictions.outbox import Outbox
        outbox = Outbox(Path({str(path)!r}), None)
        while outbox.prune(30, 2_000):
            pass
    """
    thread = threading.Thread(target=append_on)
    thread.start()
    try:
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    finally:
        stop.set()
        thread.join()

    assert len(ids_in(path)) == len(waits) + 1
    assert sorted(waits)[int(0.99 * len(waits))] < 0.1  # 0.005 on cores of our own


FULL_DISK = """
import logging, os, sys, time
from contextlib import closing
from pathlib import Path
from contract.predictions.file import LogError
from contract.predictions.log import PredictionLog
from contract.predictions.outbox import Outbox, lag_of
from tests.contract.predictions.test_outbox import TARGET, add_old, append, deliver_all, ids_in

path = Path(sys.argv[1], "predictions.db")
ids = add_old(path, 8_000, days=40)
log, outbox = PredictionLog(path), Outbox(path, TARGET)
ids += append(log)
deliver_all(outbox)
filler = os.open(path.with_name("filler"), os.O_WRONLY | os.O_CREAT)
for size in (2**20, 2**12, 1):
    try:
        while os.write(filler, b"x" * size):
            pass
    except OSError:
        pass
try:
    while True:
        ids += append(log)
except LogError as error:
    assert "space" in str(error)
assert os.statvfs(path.parent).f_bavail == 0

for _ in range(2):
    outbox.delivered("predictions", len(ids))
    try:
        outbox.save()
    except LogError as error:
        assert "space" in str(error)
    else:
        raise AssertionError("there was room")
assert outbox.next_rows("predictions", 1_000) == []  # remembered, though it cannot be written

began_s = time.monotonic()
assert outbox.prune(30) == 8_000
ids += append(log)
assert time.monotonic() - began_s < 5
outbox.save()
assert ids_in(path) == ids[8_000:]
assert path.with_name("predictions.db-ballast").stat().st_size == 4 * 2**20
assert lag_of(path, TARGET)[0].n_rows == 1
"""


# what fills it goes away, so that the log recovers; then the disk is full once more
TWICE_FULL_DISK = """
import logging, os, sys, time
from pathlib import Path
from contract.predictions.file import LogError
from contract.predictions.log import PredictionLog
from contract.predictions.outbox import Outbox
from tests.contract.predictions.test_outbox import add_old, append, wait_for

logging.basicConfig()
path = Path(sys.argv[1], "predictions.db")
ballast = path.with_name("predictions.db-ballast")
add_old(path, 2_000, days=40)
log, outbox = PredictionLog(path), Outbox(path, None)

def fill():
    with path.with_name("filler").open("wb", 0) as filler:
        for size in (2**20, 2**12, 1):
            try:
                while filler.write(b"x" * size):
                    pass
            except OSError:
                pass

def append_until_full():
    n_failures = 0  # in a row; the first lets the WAL go, which makes a little room
    while n_failures < 5:
        if n_failures and log.is_writable():
            append(log)  # what was tried takes as much room as this, at the least
        try:
            append(log)
            n_failures = 0
        except LogError as error:
            assert "space" in str(error)
            n_failures += 1
    assert not log.is_writable()

for n_left in (1_000, 500):
    append(log)
    fill()
    append_until_full()
    assert ballast.exists()
    assert outbox.prune(30, 500) == 500  # which needs the ballast
    fill()
    append_until_full()
    assert not ballast.exists()

    began_s = time.monotonic()
    path.with_name("filler").unlink()
    wait_for(log.is_writable)
    assert time.monotonic() - began_s < 5
    append(log)
    assert ballast.stat().st_size == 4 * 2**20
"""


def on_small_disk(folder: Path, program: str) -> subprocess.CompletedProcess:
    mount = f"mount -t tmpfs -o size=24m none {folder}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, mount], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no file system of our own can be mounted here")
    command = f"{mount} && exec {sys.executable} -c '{program}' {folder}"
    return subprocess.run([*unshare, command], cwd=ROOT, capture_output=True, text=True)


def test_disk_that_is_full_twice_finds_the_ballast_twice(tmp_path):
    done = on_small_disk(tmp_path, TWICE_FULL_DISK)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the ballast makes room") == 2


def test_full_disk_is_pruned_and_appends_go_on(tmp_path):
    done = on_small_disk(tmp_path, FULL_DISK)

    assert done.returncode == 0, done.stderr
    assert "the ballast makes room" in done.stderr


def test_killed_while_pruning_it_leaves_a_whole_log(path, log):
    ids = add_old(path, 5_000, days=40) + append(log)
    program = f"""if True:
        from pathlib import Path
        from contract.predictions.outbox import Outbox
        Outbox(Path({str(path)!r}), None).prune(30)
    """
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as process:
        wait_for(lambda: len(ids_in(path)) < len(ids))
        process.send_signal(signal.SIGKILL)

    left = ids_in(path)
    assert left == ids[-len(left) :]
    assert 1 < len(left) < len(ids)
    ids += append(log)
    assert select(path, "PRAGMA integrity_check") == [("ok",)]
    assert ids_in(path)[-1] == ids[-1]
