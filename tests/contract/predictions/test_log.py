"""The prediction log: all that it acknowledged is in its file, once, whatever happens."""

import json
import os
import re
import resource
import signal
import sqlite3
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.artifact import Predictions
from contract.errors import ContractError
from contract.predictions import copying
from contract.predictions import file as log_file
from contract.predictions.damage import files_aside, set_aside
from contract.predictions.file import LogError
from contract.predictions.log import PredictionLog
from contract.predictions.outage import Outage
from contract.predictions.rows import Mark
from contract.predictions.salvage import Salvage

# children do no more than append, and never wait for what another thread of ours held
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ROW = '{"area": 72.0, "heating": "gas"}'
ABOUT = {"model": "0a1b2c3d4e5f", "source": "api", "request_id": "r-1", "latency_ms": 1.5}


def told(n_rows: int) -> Predictions:
    y_pred = np.arange(n_rows, dtype=np.float64)
    return Predictions(y_pred, y_pred - 10.5, y_pred + 10.5)


def append(log: PredictionLog, n_rows: int = 1) -> list[str]:
    return log.append([ROW] * n_rows, told(n_rows), **ABOUT)


def select(path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def logged_ids(path: Path) -> list[str]:
    return [row_id for (row_id,) in select(path, "SELECT id FROM predictions ORDER BY rowid")]


def in_threads(n_threads: int, function: Callable[[], object]) -> None:
    threads = [threading.Thread(target=function) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fork(function: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        function()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(1)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_row_is_in_the_file_when_append_returns(log, path):
    before = datetime.now(UTC)

    (row_id,) = append(log)

    (row,) = select(path, "SELECT * FROM predictions")
    assert row[:2] == (1, row_id)
    assert UUID(row_id).version == 7
    assert row[3:] == ("0a1b2c3d4e5f", "api", "r-1", ROW, 0.0, -10.5, 10.5, 1.5)
    time_logged = datetime.fromisoformat(row[2])
    assert before - timedelta(milliseconds=1) <= time_logged <= datetime.now(UTC)
    assert select(path, "SELECT julianday('now') - julianday(time) < 1 FROM predictions") == [(1,)]


TEXT = st.text(st.characters(codec="utf-8"))


@settings(max_examples=40)
@given(features=st.lists(TEXT, max_size=250), request_id=TEXT, data=st.data())
def test_all_that_is_appended_comes_back(features, request_id, data):
    numbers = st.floats(allow_nan=False)
    y_pred = data.draw(st.lists(numbers, min_size=len(features), max_size=len(features)))
    ends = np.array(y_pred, dtype=np.float64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a log #1?.db")
        with closing(PredictionLog(path)) as log:
            about = ABOUT | {"request_id": request_id}
            ids = log.append(features, Predictions(ends, ends, ends), **about)
        rows = select(path, "SELECT id, features, prediction, request_id FROM predictions")

    assert rows == list(zip(ids, features, y_pred, [request_id] * len(ids), strict=True))
    assert len(set(ids)) == len(features)
    assert sorted(ids) == ids


def test_rejections_are_counted_by_field_and_rule(log, path):
    log.reject("batch", {("area", "out_of_range"): 3, ("heating", "missing"): 1})

    rows = select(path, "SELECT source, field, rule, count FROM rejections")
    assert rows == [("batch", "area", "out_of_range", 3), ("batch", "heating", "missing", 1)]


def test_rejections_that_cannot_be_counted_are_a_warning(path, caplog):
    path.write_text("not a database " * 100)
    with closing(PredictionLog(path)) as log:
        log.reject("form", {("area", "missing"): 2})

    assert "2 rejections are not counted" in caplog.text


def test_only_its_owner_may_read_the_log(log, path):
    append(log)

    files = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_append_of_many_rows_is_one_commit_in_their_order(log, path):
    ids = append(log, 2345)

    assert logged_ids(path) == ids


def test_threads_share_commits_and_lose_nothing(path):
    ids = []
    with closing(PredictionLog(path, sync_full=True)) as log:  # slow enough for them to meet
        in_threads(8, lambda: ids.extend(row for _ in range(100) for row in append(log)))

    assert sorted(logged_ids(path)) == sorted(ids)
    assert len(set(ids)) == 800


def test_no_transaction_grows_beyond_what_others_can_wait_for(log, path, monkeypatch):
    sizes, write = [], log._write

    def spy(group):
        sizes.append([len(rows.own) for rows in group])
        write(group)

    monkeypatch.setattr(log, "_write", spy)
    threads = [threading.Thread(target=append, args=(log, n)) for n in (1, 4000, 4000, 4000)]
    with log._pen:  # the first waits for it, the others behind the first
        threads[0].start()
        wait_for(lambda: log._waiting and log._waiting[0].taken)
        for thread in threads[1:]:
            thread.start()
        wait_for(lambda: len(log._waiting) == 4)
    for thread in threads:
        thread.join()

    assert sizes == [[1], [4000, 4000], [4000]]
    assert len(logged_ids(path)) == 12_001


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_bad_value_of_one_thread_costs_the_others_nothing(log, path):
    outcomes = {}

    def append_text(text: str) -> None:
        try:
            outcomes[text] = log.append([text], told(1), **ABOUT)
        except LogError as error:
            outcomes[text] = str(error)

    texts = ["a", "\ud800", "b"]
    with log._pen:
        threads = [threading.Thread(target=append_text, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(log._waiting) == 3)
    for thread in threads:
        thread.join()

    assert "One of the values" in outcomes["\ud800"]
    assert sorted(logged_ids(path)) == sorted(outcomes["a"] + outcomes["b"])


def test_thread_that_is_interrupted_while_it_waits_holds_up_nobody(log, path):
    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    thread = threading.Thread(target=append, args=(log,))
    was = signal.signal(signal.SIGALRM, interrupt)
    try:
        with log._pen:
            thread.start()
            wait_for(lambda: len(log._waiting) == 1)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                append(log)
    finally:
        signal.signal(signal.SIGALRM, was)
    thread.join()
    append(log)

    assert len(logged_ids(path)) == 2


def test_processes_with_threads_make_the_file_and_append_at_once(path):
    acknowledged = path.with_suffix(".ids")
    start = time.monotonic() + 0.3

    def work() -> None:
        log, ids = PredictionLog(path), []
        time.sleep(max(start - time.monotonic(), 0))
        in_threads(4, lambda: ids.extend(row for _ in range(25) for row in append(log)))
        log.close()
        with acknowledged.open("a") as file:
            file.write("".join(f"{row_id}\n" for row_id in ids))

    assert [exit_code(pid) for pid in [fork(work) for _ in range(8)]] == [0] * 8
    ids = acknowledged.read_text().split()
    assert len(set(ids)) == 800
    assert sorted(logged_ids(path)) == sorted(ids)


def test_many_processes_may_make_the_file_at_the_same_moment(tmp_path):
    for attempt in range(6):
        path, start = tmp_path / f"{attempt}.db", time.monotonic() + 0.05

        def work(path: Path = path, start: float = start) -> None:
            time.sleep(max(0, start - time.monotonic()))
            append(PredictionLog(path))

        assert [exit_code(pid) for pid in [fork(work) for _ in range(8)]] == [0] * 8
        assert len(logged_ids(path)) == 8


def test_killed_process_leaves_all_that_it_acknowledged_once(path, monkeypatch):
    monkeypatch.setattr(copying, "CHECKPOINT_PAGES", 50)  # killed in checkpoints, too
    acknowledged = path.with_suffix(".ids")

    def work() -> None:
        log = PredictionLog(path)
        with acknowledged.open("ab", buffering=0) as file:

            def append_on() -> None:
                while True:
                    ids = append(log, 2)
                    file.write("".join(f"{row_id}\n" for row_id in ids).encode())

            in_threads(3, append_on)

    for life_s in (0.02, 0.1, 0.15, 0.2, 0.25, 0.3):
        pids = [fork(work), fork(work)]
        time.sleep(life_s)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert [exit_code(pid) for pid in pids] == [-signal.SIGKILL] * 2

    logged, ids = logged_ids(path), acknowledged.read_text().split()
    assert len(ids) > 100
    assert len(set(logged)) == len(logged)
    assert set(ids) <= set(logged)
    assert len(logged) % 2 == 0  # no append of two was halved
    assert select(path, "PRAGMA integrity_check") == [("ok",)]


def test_fork_takes_no_open_file_along_and_both_sides_go_on(log, path):
    append(log)
    stop = threading.Event()

    def append_on() -> None:
        while not stop.is_set():
            append(log)

    def work() -> None:
        assert str(path) not in Path("/proc/self/maps").read_text()  # where SQLite keeps its locks
        in_threads(2, lambda: [append(log) for _ in range(20)])
        log.close()

    thread = threading.Thread(target=append_on)
    thread.start()
    pids = [fork(work) for _ in range(5)]
    codes = [exit_code(pid) for pid in pids]
    stop.set()
    thread.join()

    assert codes == [0] * 5
    assert len(logged_ids(path)) > 200


def test_close_leaves_no_append_waiting(path):
    for _ in range(10):
        log, ids, errors = PredictionLog(path), [], []

        def append_on(log=log, ids=ids, errors=errors) -> None:
            try:
                while True:
                    ids.extend(append(log))
            except LogError as closed:
                errors.append(str(closed))

        threads = [threading.Thread(target=append_on) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.01)
        log.close()
        for thread in threads:
            thread.join(timeout=10)

        assert [error for error in errors if "the log is closed" not in error] == []
        assert len(errors) == 6
        assert set(ids) <= set(logged_ids(path))


def test_wal_is_begun_anew_although_threads_never_pause(log, path, monkeypatch):
    monkeypatch.setattr(copying, "CHECKPOINT_PAGES", 30)
    monkeypatch.setattr(copying, "LONG_WAL_PAGES", 60)
    wal, stop = path.with_name(f"{path.name}-wal"), threading.Event()
    append(log)

    def append_on() -> None:
        while not stop.is_set():
            append(log)

    def n_beginnings() -> int:
        """Read it from the WAL's header; see sqlite.org/fileformat2.html, the WAL file format."""
        return int.from_bytes(wal.read_bytes()[12:16])

    threads = [threading.Thread(target=append_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: n_beginnings() >= 3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_batch_of_another_process_lets_single_rows_through(path):
    def work() -> None:
        log = PredictionLog(path)
        while True:
            append(log, 10_000)

    pid, waits = fork(work), []
    wait_for(lambda: path.exists() and path.stat().st_size > 0)
    with closing(PredictionLog(path)) as log:
        for _ in range(20):
            start = time.perf_counter()
            append(log)
            waits.append(time.perf_counter() - start)
    os.kill(pid, signal.SIGKILL)
    exit_code(pid)

    assert sorted(waits)[10] < 0.3  # 0.02 on cores of our own


def test_log_that_is_there_is_opened_while_another_writes(log, path):
    append(log)
    with closing(sqlite3.connect(path, isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        log_file.open_log(path, sync_full=False).close()  # else it is busy, after BUSY_S

        with closing(sqlite3.connect(path)) as third, pytest.raises(sqlite3.OperationalError):
            third.execute("PRAGMA busy_timeout = 0")
            third.execute("BEGIN IMMEDIATE")


def test_error_is_one_of_the_contract():
    assert issubclass(LogError, ContractError)


def test_missing_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "predictions.db"
    with closing(PredictionLog(path)) as log:
        append(log)

    assert len(logged_ids(path)) == 1


def test_folder_that_cannot_be_written_is_named_and_tried_again(guarded_folder):
    path = guarded_folder / "predictions.db"
    guarded_folder.chmod(0o500)
    with closing(PredictionLog(path)) as log:
        with pytest.raises(
            LogError, match=r"predictions\.db: nothing was logged.*writable"
        ) as told:
            append(log)
        assert "damaged" not in str(told.value)
        guarded_folder.chmod(0o700)
        ids = append(log)

    assert logged_ids(path) == ids


def test_folder_that_was_made_read_only_since_is_named_and_tried_again(guarded_folder):
    path = guarded_folder / "predictions.db"
    with closing(PredictionLog(path)) as log:
        first = append(log)
    path.chmod(0o400)
    guarded_folder.chmod(0o500)
    with closing(PredictionLog(path)) as log:
        with pytest.raises(LogError, match="writable"):
            append(log)
        guarded_folder.chmod(0o700)
        path.chmod(0o600)
        ids = append(log)

    assert logged_ids(path) == first + ids


def test_full_disk_is_named_halves_nothing_and_the_log_goes_on_afterwards(path):
    def work() -> None:
        log, ids, n_errors = PredictionLog(path), [], 0
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        while n_errors < 5:
            try:
                ids += append(log, 7)
            except LogError as error:
                assert "space" in str(error)
                n_errors += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        ids += append(log, 1000)
        assert logged_ids(path) == ids
        assert len(ids) > 1000

    assert exit_code(fork(work)) == 0


@pytest.mark.parametrize("content", [b"a, b\n1, 2\n" * 200, b"SQLite format 3\0" + b"\7" * 5000])
def test_file_of_another_program_is_left_as_it_is(log, path, content):
    path.write_bytes(content)

    with pytest.raises(LogError, match="move the file aside"):
        append(log)

    assert path.read_bytes() == content
    path.unlink()
    assert append(log) == logged_ids(path)


@pytest.mark.parametrize(
    "table", ["predictions (id INTEGER, flat TEXT)", "flats (id INTEGER, rent REAL)"]
)
def test_database_of_another_program_is_left_as_it_is(log, path, table):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {table}")
    content = path.read_bytes()

    with pytest.raises(LogError, match=rf"with the tables {table.split()[0]}\. Name another path"):
        append(log)

    assert path.read_bytes() == content


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 1])
def test_truncated_log_is_kept_aside_and_a_new_one_begun(path, share, caplog):
    with closing(PredictionLog(path)) as log:
        append(log, 1000)
    n_left = int(path.stat().st_size * share) if share < 1 else 50  # bytes of the header
    os.truncate(path, n_left)

    with closing(PredictionLog(path)) as log:
        ids = append(log)

    assert logged_ids(path) == ids
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.stat().st_size == n_left
    assert f"{path} was damaged: what is left is now {aside}" in caplog.text


def test_processes_that_find_a_truncated_log_begin_one_new_log(path):
    with closing(PredictionLog(path)) as log:
        append(log, 1000)
    os.truncate(path, path.stat().st_size // 2)

    def work() -> None:
        with closing(PredictionLog(path)) as log:
            for _ in range(20):
                append(log)

    codes = [exit_code(child) for child in [fork(work) for _ in range(4)]]

    assert codes == [0] * 4
    assert len(logged_ids(path)) == 80
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_contract_of_each_model_is_told_once_with_its_first_row(path):
    with closing(PredictionLog(path)) as log:
        log.describe("0a1b2c3d4e5f", '{"features": []}')
        append(log)
        append(log)
        log.describe("f5e4d3c2b1a0", '{"features": [1]}')
        append(log)
    with closing(PredictionLog(path)) as log:
        log.describe("f5e4d3c2b1a0", '{"features": [1]}')
        append(log)

    told = select(path, "SELECT version, contract FROM models ORDER BY seq")
    assert told == [("0a1b2c3d4e5f", '{"features": []}'), ("f5e4d3c2b1a0", '{"features": [1]}')]


def test_contract_that_is_told_of_during_a_commit_is_in_the_next(path):
    class Late(Mark):
        def insert(self, connection: sqlite3.Connection) -> None:
            log.describe("f5e4d3c2b1a0", "{}")  # as another thread may

    with closing(PredictionLog(path)) as log:
        log.describe("0a1b2c3d4e5f", "{}")
        log.write([Late(log_file.PREDICTIONS, (), [])])
        append(log)

    assert select(path, "SELECT version FROM models") == [("0a1b2c3d4e5f",), ("f5e4d3c2b1a0",)]


def test_path_that_is_a_folder_is_an_error(tmp_path):
    with closing(PredictionLog(tmp_path)) as log, pytest.raises(LogError, match="another path"):
        append(log)


def test_log_that_fails_is_said_once_and_when_it_is_over(log, path, caplog):
    path.mkdir()
    for _ in range(3):
        with pytest.raises(LogError, match="another path"):
            append(log)
        log.reject("form", {("area", "missing"): 1})
    assert not log.is_writable()
    path.rmdir()
    append(log)
    append(log)

    (begun, over) = caplog.messages
    assert f"{path}: nothing was logged" in begun
    assert re.search(r"rows are logged again, after \d\.\d s and 7 appends that failed", over)


def test_other_numbers_are_no_other_outage(path, caplog):
    outage = Outage(path)
    for number in range(3):
        outage.note(1, f"{path}.damaged-{number} is in the way.")
    outage.note(1, "The disk is full.")

    assert len(caplog.messages) == 2


def test_bad_value_is_no_outage(log, caplog):
    with pytest.raises(LogError):
        log.append(["\ud800"], told(1), **ABOUT)

    assert len(caplog.messages) == 1
    assert "One of the values" in caplog.messages[0]
    assert log.is_writable()


def test_whether_rows_can_be_logged_is_tried_out_without_leaving_any(log, path):
    assert log.is_writable()
    n_bytes = path.stat().st_size + Path(f"{path}-wal").stat().st_size
    for _ in range(3):
        log._written_s = 0
        assert log.is_writable()

    assert logged_ids(path) == []
    assert Path(f"{path}-wal").stat().st_size > n_bytes
    assert select(path, "SELECT count(*) FROM delivery_state") == [(1,)]


def test_file_that_is_taken_away_is_begun_anew(log, path):
    append(log)
    for file in path.parent.iterdir():
        file.unlink()

    assert append(log) == logged_ids(path)


def test_file_that_another_program_holds_is_waited_for_in_vain_but_not_for_ever(
    log, path, monkeypatch
):
    append(log)
    monkeypatch.setattr(log_file, "BUSY_S", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogError, match="Another program has held the file"):
            append(log)
        other.execute("COMMIT")
        append(log)

    assert len(logged_ids(path)) == 2


def test_full_synchronisation_is_what_the_argument_asks_for(path):
    for sync_full, level in ((False, 1), (True, 2)):
        with closing(PredictionLog(path, sync_full=sync_full)) as log:
            append(log)
            assert log._connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_features_stay_json_that_sqlite_can_look_into(log, path):
    log.append([json.dumps({"area": 72.5})], told(1), **ABOUT)

    assert select(path, "SELECT json_extract(features, '$.area') FROM predictions") == [(72.5,)]


@pytest.mark.parametrize("damage", ["emptied", "without its WAL"])
def test_log_that_was_damaged_is_set_aside_and_a_new_one_begun(damage, log, path):
    before = append(log)
    if damage == "emptied":
        os.truncate(path, 0)
    else:
        Path(f"{path}-wal").unlink()

    after = [row_id for _ in range(5) for row_id in append(log)]

    assert sorted(logged_ids(path)) == sorted(after)
    (aside,) = [each for each in path.parent.glob("*.damaged-*") if each.name[-1].isdigit()]
    if damage == "without its WAL":  # closing it has written what was in there
        assert logged_ids(aside) == before


@pytest.mark.parametrize("n_pages", [0, 1, 5, 20])
def test_log_that_is_cut_while_it_is_open_is_set_aside_with_its_wal(n_pages, path):
    with closing(PredictionLog(path)) as log:
        append(log, 1000)
    with closing(PredictionLog(path)) as log:
        before = [row_id for _ in range(50) for row_id in append(log)]
        os.truncate(path, 4096 * n_pages)

        after = [row_id for _ in range(5) for row_id in append(log)]

        assert logged_ids(path) == after
        (aside,) = files_aside(path)
        assert set(before) <= salvaged_ids(aside)


def test_look_ahead_hides_no_cut(path):
    with closing(PredictionLog(path)) as log:
        wal = Path(f"{path}-wal")
        log.look_ahead()  # at nothing
        wal.mkdir()
        log.look_ahead()  # at what cannot be read
        wal.rmdir()
        append(log, 1000)
    with closing(PredictionLog(path)) as log, closing(PredictionLog(path)) as other:
        append(log, 50)
        other.look_ahead()
        os.truncate(path, 4096 * 5)

        after = append(other)

        assert logged_ids(path) == after
        assert len(files_aside(path)) == 1


def test_cut_file_is_not_made_longer_by_a_copy_of_the_wal(path, monkeypatch):
    with closing(PredictionLog(path)) as log:
        append(log, 1000)
    monkeypatch.setattr(copying, "CHECKPOINT_PAGES", 10)
    with closing(PredictionLog(path)) as log:
        append(log, 100)
        os.truncate(path, 4096 * 20)
        log._copying.run(log._files)

        assert path.stat().st_size == 4096 * 20
        append(log)
    assert len(files_aside(path)) == 1


def test_file_that_is_cut_while_the_wal_is_copied_is_set_aside(path, monkeypatch):
    """The copy makes it as long as before, with a hole in the middle."""
    with closing(PredictionLog(path)) as log:
        append(log, 1000)

    def copy_into_a_cut_file(*arguments) -> int:
        os.truncate(path, n_bytes - 4096 * 12)  # SQLite itself notices a cut of 64 KiB
        return log_file.checkpoint(*arguments)

    with closing(PredictionLog(path)) as log:
        before = append(log, 100)
        n_bytes = path.stat().st_size
        monkeypatch.setattr(copying, "checkpoint", copy_into_a_cut_file)
        log._copying.run(log._files)
        assert path.stat().st_size >= n_bytes

        after = append(log)

        assert logged_ids(path) == after
    (aside,) = files_aside(path)
    assert set(before) <= salvaged_ids(aside)


def test_wal_without_its_file_is_set_aside_rather_than_deleted(path, caplog):
    log = PredictionLog(path)
    before = append(log, 20)
    path.unlink()

    with closing(PredictionLog(path)) as other:
        after = append(other)

    log.close()
    assert logged_ids(path) == after
    (aside,) = files_aside(path)
    assert set(before) <= salvaged_ids(aside)
    assert f"`python -m ops.predictions recover {aside}`" in caplog.text


def test_no_row_is_committed_to_files_that_another_process_sets_aside(path):
    """Workers and who sets aside go on at once; all that is acknowledged is at the path then."""
    ids, stop = [], threading.Event()
    log = PredictionLog(path)
    append(log, 200)

    def append_on() -> None:
        while not stop.is_set():
            ids.append((time.monotonic(), append(log)))

    thread = threading.Thread(target=append_on)
    thread.start()
    renamed = []
    with closing(PredictionLog(path)) as other:
        for _ in range(30):
            time.sleep(0.01)
            other._begin()
            set_aside(path, other._files.main)
            renamed.append(time.monotonic())
            other._disconnect()
            append(other)
    stop.set()
    thread.join()
    log.close()

    assert len(files_aside(path)) == 30
    kept = {row for aside in files_aside(path) for row in salvaged_ids(aside)}
    kept |= set(logged_ids(path))
    assert {row for _, rows in ids for row in rows} <= kept
    last = [row for at, rows in ids for row in rows if at > renamed[-1]]
    assert set(last) <= set(logged_ids(path))


def salvaged_ids(path: Path) -> set[str]:
    with Salvage(path) as salvage:
        return {values[0] for table, values in salvage.rows() if table == "predictions"}
