"""Delivery: all that is logged arrives once, whatever the database does meanwhile."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from contract.artifact import Predictions
from contract.predictions.database import Database, DatabaseError
from contract.predictions.delivery import (
    LONGEST_PAUSE_S,
    ROWS_A_BATCH,
    Delivery,
    _Trouble,
    deliver_once,
)
from contract.predictions.file import connect
from contract.predictions.log import PredictionLog
from contract.predictions.outbox import Lag, Outbox, lag_of
from contract.predictions.settings import DatabaseAddress
from tests.contract.predictions.test_outbox import add_old, ids_in, select
from tests.postgres import FreshDatabase

ABOUT = {"model": "0a1b2c3d4e5f", "source": "api", "request_id": "r-1", "latency_ms": 1.5}
ROW = '{"area": 72.0, "heating": "gas"}'
NUL = '{"heating": "\\u0000"}'  # JSON for SQLite, but not for PostgreSQL
PATIENCE_S = 0.5  # with a server that does not answer
BACK_S = 2.0  # from the return of the database


@pytest.fixture
def address(postgres) -> DatabaseAddress:
    return DatabaseAddress(postgres.url)


@pytest.fixture
def database(address) -> Iterator[Database]:
    with closing(Database(address)) as database:
        database.expect_tables()
        yield database


@pytest.fixture
def outbox(path, address) -> Iterator[Outbox]:
    with closing(Outbox(path, address.name)) as outbox:
        yield outbox


def append(log: PredictionLog, *features: str) -> list[str]:
    y_pred = np.arange(len(features), dtype=np.float64)
    return log.append(features, Predictions(y_pred, y_pred - 1, y_pred + 1), **ABOUT)


def ids_there(postgres: FreshDatabase) -> list[str]:
    if postgres.execute("SELECT to_regclass('predictions')") == [(None,)]:
        return []
    return [row_id for (row_id,) in postgres.execute("SELECT id::text FROM predictions")]


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> float:
    """Wait until it holds; give the seconds that it took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() < began_s + seconds
        time.sleep(0.01)
    return time.monotonic() - began_s


@contextmanager
def delivering(path: Path, address: DatabaseAddress, keep_days: float = 30) -> Iterator[None]:
    """Deliver in the background until the block ends."""
    stop = threading.Event()

    def deliver() -> None:
        with (
            closing(Outbox(path, address.name)) as outbox,
            closing(Database(address, patience_s=PATIENCE_S)) as database,
        ):
            Delivery(outbox, database, keep_days).run(stop)

    thread = threading.Thread(target=deliver)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_rows_of_all_tables_arrive(log, outbox, database, postgres):
    log.describe("0a1b2c3d4e5f", '{"features": []}')
    ids = append(log, ROW, ROW)
    log.reject("form", {("area", "missing"): 2})

    assert deliver_once(outbox, database) == 4
    assert deliver_once(outbox, database) == 0

    assert sorted(ids_there(postgres)) == ids
    query = "SELECT model, source, request_id, features, prediction, lower, upper, latency_ms "
    rows = postgres.execute(f"{query} FROM predictions ORDER BY prediction")
    assert rows[1] == ("0a1b2c3d4e5f", "api", "r-1", json.loads(ROW), 1.0, 0.0, 2.0, 1.5)
    assert postgres.execute("SELECT version FROM prediction_models") == [("0a1b2c3d4e5f",)]
    assert postgres.execute("SELECT count FROM prediction_rejections") == [(2,)]


def test_batches_follow_each_other_until_nothing_waits(log, outbox, database, postgres):
    ids = append(log, *[ROW] * 25)

    assert [deliver_once(outbox, database, 10) for _ in range(4)] == [10, 10, 5, 0]
    assert sorted(ids_there(postgres)) == ids


def test_rows_that_are_sent_twice_are_there_once(log, path, address, database, postgres):
    ids = append(log, ROW, ROW)
    with closing(Outbox(path, address.name)) as killed:
        rows = killed.next_rows("predictions", 10)
        database.insert("predictions", [row[1:] for row in rows])

    with closing(Outbox(path, address.name)) as outbox:
        assert deliver_once(outbox, database) == 2
    assert sorted(ids_there(postgres)) == ids


def test_another_database_gets_all_rows_anew(log, path, outbox, database, postgres):
    ids = append(log, ROW, ROW)
    deliver_once(outbox, database)
    other = f"{postgres.name}_other"
    postgres.execute(f"CREATE DATABASE {other}")
    try:
        address = DatabaseAddress(postgres.server.url(other))
        with delivering(path, address):
            wait_for(lambda: lag_of(path, address.name)[0].n_rows == 0)
        there = postgres.server.execute("SELECT id::text FROM predictions", database=other)
        assert sorted(row_id for (row_id,) in there) == ids
    finally:
        postgres.execute(f"DROP DATABASE {other} WITH (FORCE)")


def test_two_logs_go_into_one_database(tmp_path, address, postgres):
    ids, stop = [], threading.Event()

    def append_on(path: Path) -> None:
        with closing(PredictionLog(path)) as log:
            while not stop.is_set():
                ids.extend(append(log, ROW, ROW))
                time.sleep(0.001)

    paths = [tmp_path / "a.db", tmp_path / "b.db"]
    threads = [threading.Thread(target=append_on, args=(path,)) for path in paths]
    with delivering(paths[0], address), delivering(paths[1], address):
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        wait_for(lambda: all(lag_of(path, address.name)[0].n_rows == 0 for path in paths))

    assert len(ids) > 100
    assert sorted(ids_there(postgres)) == sorted(ids)


def test_rows_that_postgresql_cannot_hold_are_set_apart(
    log,
    path,
    outbox,
    database,
    postgres,
    caplog,
):
    features = [ROW] * 300
    features[17] = features[18] = features[299] = NUL
    ids = append(log, *features)

    assert deliver_once(outbox, database) == 300

    bad = {ids[17], ids[18], ids[299]}
    assert {*ids_there(postgres)} == {*ids} - bad
    kept = select(path, "SELECT id, error FROM undeliverable JOIN predictions USING (seq)")
    assert {row_id for row_id, _ in kept} == bad
    assert all("cannot hold a value" in error for _, error in kept)
    assert caplog.text.count("cannot be delivered and is kept here") == 3
    assert lag_of(path, database.address.name) == (Lag(0, 0.0), "")


def test_prediction_is_in_the_table_within_a_second(log, path, address, postgres):
    append(log, ROW)
    with delivering(path, address):
        wait_for(lambda: lag_of(path, address.name)[0].n_rows == 0)
        for n_rows in (2, 3, 4):
            append(log, ROW)
            assert wait_for(lambda n=n_rows: len(ids_there(postgres)) == n) < 1


def test_log_that_does_not_exist_yet_is_delivered_once_it_does(path, address, postgres):
    with delivering(path, address):
        time.sleep(0.1)
        with closing(PredictionLog(path)) as log:
            ids = append(log, ROW)
        wait_for(lambda: lag_of(path, address.name)[0].n_rows == 0)

    assert ids_there(postgres) == ids


def test_database_is_not_asked_while_nothing_comes(log, path, address, postgres):
    append(log, ROW)
    query = "SELECT state_change FROM pg_stat_activity WHERE application_name = 'prediction log'"
    with delivering(path, address):
        wait_for(lambda: lag_of(path, address.name)[0].n_rows == 0)
        before = postgres.execute(query)
        time.sleep(0.5)
        assert postgres.execute(query) == before != []


def test_calm_log_is_looked_at_by_one_quick_statement(log, outbox, database):
    append(log, ROW)
    delivery, statements = Delivery(outbox, database, 30), []
    while delivery.step() == 0 or outbox.lag().n_rows or outbox.has_news():
        pass
    outbox._connection.set_trace_callback(statements.append)

    delivery.step()
    assert statements == ["PRAGMA data_version"]


def test_tables_that_are_dropped_are_made_anew(log, path, address, postgres):
    append(log, ROW)
    with delivering(path, address):
        wait_for(lambda: len(ids_there(postgres)) == 1)
        postgres.execute("DROP TABLE predictions")
        ids = append(log, ROW)
        wait_for(lambda: ids_there(postgres) == ids)


FAULTS = {
    "stopped": ("stop", "start"),
    "killed": ("kill", "start"),
    "restarted": ("restart", "thaw"),
    "frozen": ("freeze", "thaw"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_of_the_database_nothing_is_lost_or_doubled(
    fault,
    log,
    path,
    address,
    postgres,
):
    ids, stop = [], threading.Event()

    def append_on() -> None:
        while not stop.is_set():
            ids.extend(append(log, ROW))
            time.sleep(0.002)

    thread = threading.Thread(target=append_on)
    begin, end = FAULTS[fault]
    with delivering(path, address):
        thread.start()
        wait_for(lambda: len(ids) > 50 and ids[50] in ids_there(postgres))
        getattr(postgres.server, begin)()
        n_before = len(ids)
        wait_for(lambda: len(ids) > n_before + 100)  # nobody who appends waits
        if fault != "restarted":
            wait_for(lambda: lag_of(path, address.name)[1] != "")
        getattr(postgres.server, end)()
        row_id = ids[-1]
        assert wait_for(lambda: row_id in ids_there(postgres)) < BACK_S
        stop.set()
        thread.join()
        wait_for(lambda: lag_of(path, address.name)[0].n_rows == 0)

    assert sorted(ids_there(postgres)) == sorted(ids) == sorted(ids_in(path))


def test_problem_is_told_once_when_it_begins_and_once_when_it_ends(
    log,
    path,
    address,
    postgres,
    caplog,
):
    caplog.set_level(logging.INFO, "contract.predictions")
    append(log, ROW)
    with delivering(path, address):
        wait_for(lambda: lag_of(path, address.name)[0].n_rows == 0)
        postgres.server.stop()
        append(log, ROW, ROW)
        wait_for(lambda: "refused" in lag_of(path, address.name)[1])
        time.sleep(0.5)  # for several tries
        assert lag_of(path, address.name)[0].n_rows == 2
        postgres.server.start()
        wait_for(lambda: lag_of(path, address.name) == (Lag(0, 0.0), ""))

    told = [record.getMessage() for record in caplog.records]
    assert len([each for each in told if "refused" in each]) == 1
    assert "2 rows wait" in next(each for each in told if "refused" in each)
    (ended,) = [each for each in told if "delivered again" in each]
    assert ended.endswith("0 rows wait.")
    assert len(told) <= 4  # the first failure may be that of a connection that broke


def test_problem_that_is_there_from_the_start_is_told(log, path, postgres, caplog):
    append(log, ROW)
    address = DatabaseAddress(postgres.url_of("postgres", "wrong"))
    with delivering(path, address):
        wait_for(lambda: "password" in lag_of(path, address.name)[1])

    assert "1 rows wait" in caplog.text
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_problem_of_a_process_that_was_killed_is_taken_back_by_the_next(log, path, outbox, address):
    append(log, ROW)
    outbox.say("no route")

    with delivering(path, address):
        wait_for(lambda: lag_of(path, address.name) == (Lag(0, 0.0), ""))


def test_log_that_another_program_holds_is_delivered_all_the_same(
    log,
    path,
    address,
    database,
    postgres,
    monkeypatch,
):
    monkeypatch.setattr("contract.predictions.file.BUSY_S", 0.2)
    ids = append(log, *[ROW] * 3)
    with closing(connect(path)) as other, delivering(path, address):
        other.execute("BEGIN IMMEDIATE")
        wait_for(lambda: sorted(ids_there(postgres)) == ids)
        other.execute("ROLLBACK")
        wait_for(lambda: lag_of(path, address.name) == (Lag(0, 0.0), ""))


def test_pauses_grow_differ_and_stay_below_a_limit_for_ever():
    pauses_s = [
        [trouble.next_pause_s() for _ in range(2000)] for trouble in (_Trouble(), _Trouble())
    ]

    for each in pauses_s:
        assert each[0] <= 0.1
        assert each[0] < each[2] < each[4]
        assert max(each) <= LONGEST_PAUSE_S
        assert min(each[5:]) >= LONGEST_PAUSE_S / 2
    assert pauses_s[0] != pauses_s[1]


def test_batches_shrink_where_whole_ones_never_arrive_in_time(log, outbox, address, postgres):
    ids = append(log, *[ROW] * 200)
    with closing(Database(address, patience_s=0.15)) as database:
        delivery = Delivery(outbox, database, 30)
        database.expect_tables()
        postgres.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END$$"
        )
        postgres.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON predictions FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        wait_for(lambda: delivery.step() >= 0 and outbox.lag().n_rows == 0, 30)

    assert sorted(ids_there(postgres)) == ids


def test_old_rows_leave_the_log_while_it_is_delivered(path, address):
    add_old(path, 5000, days=40)
    ids = add_old(path, 5, days=1)
    with delivering(path, address):
        wait_for(lambda: ids_in(path) == ids)


def test_last_rows_are_delivered_at_the_end_and_failures_left_to_the_next(
    log,
    path,
    outbox,
    address,
    postgres,
):
    ids = append(log, *[ROW] * (ROWS_A_BATCH + 1))
    with closing(Database(address)) as database:
        database.expect_tables()
        delivery = Delivery(outbox, database, 30)
        delivery.drain(2)
        assert sorted(ids_there(postgres)) == ids
        append(log, ROW)
        postgres.server.stop()
        delivery.drain(2)
        assert outbox.lag().n_rows == 1
        with pytest.raises(DatabaseError):
            deliver_once(outbox, database)


def test_end_does_not_wait_for_rows_that_keep_coming(log, outbox, database):
    stop = threading.Event()

    def append_on() -> None:
        while not stop.is_set():
            append(log, ROW)

    thread = threading.Thread(target=append_on)
    thread.start()
    began_s = time.monotonic()
    try:
        Delivery(outbox, database, 30).drain(60)
    finally:
        stop.set()
        thread.join()

    assert time.monotonic() - began_s < 30


def test_backlog_is_caught_up_with(log, path, address, postgres, record_property):
    n_rows = 40_000
    for _ in range(n_rows // 10_000):
        append(log, *[ROW] * 10_000)
    with delivering(path, address):
        seconds = wait_for(lambda: lag_of(path, address.name)[0].n_rows == 0, 60)

    record_property("rows_per_s", round(n_rows / seconds))
    assert len({*ids_there(postgres)}) == n_rows
