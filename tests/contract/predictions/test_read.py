"""Reading the log: from the file and from PostgreSQL come the same rows, all of them, once."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from contract.errors import ContractError
from contract.features import Contract
from contract.predictions.file import LogError
from contract.predictions.log import PredictionLog
from contract.predictions.read import (
    EVERYTHING,
    SCHEMA,
    FileReader,
    Reader,
    Window,
    open_log_for_reading,
)
from contract.predictions.settings import LogSettings
from tests.example import CONTRACT, NUMBERS_ONLY
from tests.logged import GAS, MODEL, append, deliver, describe, write_log

BACKENDS = ["file", "database"]


@pytest.fixture
def log(log) -> PredictionLog:
    describe(log)
    return log


@pytest.fixture(params=BACKENDS)
def open_reader(request, path):
    """Give what opens a reader of all that the log at `path` holds by then, in either place."""
    readers = []
    url = request.getfixturevalue("postgres").url if request.param == "database" else ""

    def open_it() -> Reader:
        if url:
            deliver(path, url)
        settings = LogSettings(prediction_log=str(path), database_url=url)
        readers.append(open_log_for_reading(settings))
        return readers[-1]

    yield open_it
    for reader in readers:
        reader.close()


def read(reader: Reader, window: Window = EVERYTHING, **options) -> list[dict]:
    return [row for batch in reader.batches(window, **options) for row in batch.to_pylist()]


def ids(reader: Reader, window: Window = EVERYTHING, **options) -> list[str]:
    return [row["id"] for row in read(reader, window, **options)]


def attach(path: Path, row_id: str, truth: float) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO truths (id, time, truth) VALUES (?, '2026-11-23T08:00:00.000Z', ?)",
            (row_id, truth),
        )
        connection.commit()


def set_time(path: Path, row_id: str, text: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE predictions SET time = ? WHERE id = ?", (text, row_id))
        connection.commit()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_rows_come_with_all_that_was_logged_and_their_truth(log, path, open_reader):
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    first, second = append(log, [GAS, {"heating": 'Öl, "alt"'}], source="form", request_id="r-7")
    attach(path, second, 99.5)

    reader = open_reader()
    (batch,) = reader.batches()

    assert batch.schema == SCHEMA
    one, other = batch.to_pylist()
    assert before <= one.pop("time") <= datetime.now(UTC)
    assert json.loads(one.pop("features")) == GAS
    assert json.loads(other["features"]) == {"heating": 'Öl, "alt"'}
    assert one == {
        "id": first,
        "model": MODEL,
        "source": "form",
        "request_id": "r-7",
        "prediction": 0.0,
        "lower": -10.5,
        "upper": 10.5,
        "latency_ms": 1.5,
        "truth": None,
    }
    assert (other["id"], other["prediction"], other["truth"]) == (second, 1.0, 99.5)


def test_rows_come_oldest_first_in_batches_of_at_most_so_many(log, open_reader):
    logged = [row_id for _ in range(3) for row_id in append(log, [GAS] * 7)]

    reader = open_reader()

    assert ids(reader) == logged
    assert [batch.num_rows for batch in reader.batches(rows_a_batch=8)] == [8, 8, 5]
    assert ids(reader, rows_a_batch=1) == logged


def test_window_has_its_beginning_and_not_its_end(log, path, open_reader):
    logged = append(log, [GAS] * 4)
    times = ["20T08:00:00.500Z", "21T08:00:00.499Z", "21T08:00:00.500Z", "22T08:00:00.000Z"]
    for row_id, text in zip(logged, times, strict=True):
        set_time(path, row_id, f"2026-11-{text}")

    reader = open_reader()

    since = at("2026-11-21T09:00:00.499+01:00")
    until = at("2026-11-21T08:00:00.500+00:00")
    assert ids(reader, Window(since=since)) == logged[1:]
    assert ids(reader, Window(until=until)) == logged[:2]
    assert ids(reader, Window(since=since, until=until)) == logged[1:2]
    assert ids(reader, Window(since=since), rows_a_batch=1) == logged[1:]
    assert ids(reader, Window(until=at("2026-11-01T00:00+00:00"))) == []


def test_last_rows_are_the_newest_of_the_window(log, path, open_reader):
    logged = append(log, [GAS] * 5)  # all of the same moment
    for row_id in logged[:2]:
        set_time(path, row_id, "2026-11-20T08:00:00.000Z")

    reader = open_reader()

    assert ids(reader, Window(last=2)) == logged[-2:]
    assert ids(reader, Window(last=4)) == logged[1:]
    assert ids(reader, Window(last=99)) == logged
    assert ids(reader, Window(until=at("2026-11-21T00:00+00:00"), last=1)) == logged[1:2]
    assert ids(reader, Window(since=at("2999-01-01T00:00+00:00"), last=1)) == []
    assert reader.newest(3)["id"].to_pylist() == logged[-3:]


@pytest.mark.parametrize("last", [0, -1])
def test_window_of_no_rows_is_an_error(last):
    with pytest.raises(ValueError, match="expected 1 or more"):
        Window(last=last)


def test_rows_that_come_while_others_are_read_double_and_hide_none(log, path):
    logged = append(log, [GAS] * 10)

    found = []
    for batch in FileReader(path).batches(rows_a_batch=4):
        found += batch["id"].to_pylist()
        append(log, [GAS] * 4)

    assert found == logged


def test_reading_holds_no_transaction_open_between_batches(log, path):
    append(log, [GAS] * 10)
    batches = FileReader(path).batches(rows_a_batch=4)
    next(batches)
    append(log, [GAS])

    with closing(sqlite3.connect(path)) as connection:
        busy, n_pages, n_copied = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    assert (busy, n_pages, n_copied) == (0, 0, 0)  # with a reader in the way it is busy
    assert sum(batch.num_rows for batch in batches) == 6


class CountingReader(FileReader):
    """Counts the steps that SQLite takes, in thousands."""

    n_steps = 0

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with super()._connected() as connection:
            connection.set_progress_handler(self._count, 1000)
            yield connection

    def _count(self) -> None:
        self.n_steps += 1


def test_page_of_a_long_log_begins_where_the_last_one_ended(log, path):
    append(log, [GAS] * 10_000)
    few, many = CountingReader(path), CountingReader(path)

    assert len(ids(few, rows_a_batch=10_000)) == len(ids(many, rows_a_batch=100)) == 10_000

    assert many.n_steps < 2 * few.n_steps  # if each began at the first row, 50 times as many


def test_rejections_have_their_time_field_and_rule(log, open_reader):
    append(log, [GAS])
    log.reject("form", {("area", "out_of_range"): 3, ("", "unknown_field"): 1})
    log.reject("ready", {("", "attempt"): 0})  # a probe, which refuses nothing

    table = open_reader().rejections()

    assert table.drop_columns("time").to_pylist() == [
        {"source": "form", "field": "area", "rule": "out_of_range", "count": 3},
        {"source": "form", "field": "", "rule": "unknown_field", "count": 1},
    ]
    assert table.schema.field("time").type == pa.timestamp("ms", "UTC")


def test_rejections_of_another_time_are_not_in_the_window(log, open_reader):
    append(log, [GAS])
    log.reject("form", {("area", "missing"): 1})

    reader = open_reader()

    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert reader.rejections(Window(since=tomorrow)).num_rows == 0
    assert reader.rejections(Window(until=tomorrow)).num_rows == 1
    assert reader.rejections(Window(last=1)).num_rows == 1


def test_contracts_are_those_of_all_versions_oldest_first(log, open_reader):
    newer = Contract.model_validate(NUMBERS_ONLY)
    append(log, [GAS])
    time.sleep(0.002)
    describe(log, newer, "ffffffffffff")
    append(log, [GAS], model="ffffffffffff")

    contracts = open_reader().contracts()

    assert list(contracts.items()) == [(MODEL, CONTRACT), ("ffffffffffff", newer)]


def test_contract_of_a_later_release_is_named(log, path):
    log.describe("ffffffffffff", '{"shape": "unknown"}')
    append(log, [GAS])

    with pytest.raises(LogError, match=r"contract of model ffffffffffff cannot be read"):
        FileReader(path).contracts()


def test_empty_log_gives_nothing(log, path, open_reader):
    log.reject("ready", {})  # which makes the file
    log.reject("ready", {("", "attempt"): 0})

    reader = open_reader()

    assert list(reader.batches()) == []
    assert reader.newest(3).schema == SCHEMA
    assert reader.rejections().num_rows == 0
    assert ids(reader, Window(last=3)) == []


def test_file_in_which_the_tables_are_about_to_be_made_is_an_empty_log(path):
    path.touch()

    assert list(FileReader(path).batches()) == []
    assert FileReader(path).contracts() == {}
    assert path.stat().st_size == 0


def test_missing_file_is_named(path):
    with pytest.raises(LogError, match=r"predictions\.db does not exist"):
        FileReader(path)


def test_folder_is_no_log(tmp_path):
    with pytest.raises(LogError, match="does not exist, or is no file"):
        FileReader(tmp_path)


@pytest.mark.parametrize("content", [b"id,truth\n" * 500, b"\0" * 5000])
def test_file_of_another_program_is_refused(path, content):
    path.write_bytes(content)

    with pytest.raises(LogError, match=str(path)):
        FileReader(path)
    assert path.read_bytes() == content


def test_database_of_another_program_is_refused(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE flats (rent REAL)")

    with pytest.raises(LogError, match=r"another program, with the tables flats\."):
        FileReader(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_log_is_an_error_and_not_fewer_rows(path, share):
    write_log(path, 5_000)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(LogError, match="damaged"):
        read(FileReader(path))


def test_log_that_is_off_is_nothing_to_read():
    with pytest.raises(LogError, match="PREDICTION_LOG is off"):
        open_log_for_reading(LogSettings(prediction_log="off"))


def test_local_file_is_read_though_a_database_is_set(path):
    write_log(path, 2)
    settings = LogSettings(
        prediction_log=str(path), database_url="postgresql://u:secret@127.0.0.1:1/db"
    )

    assert open_log_for_reading(settings, local=True).name == str(path)
    with pytest.raises(ContractError, match=r"127\.0\.0\.1:1/db") as raised:
        open_log_for_reading(settings)
    assert "secret" not in str(raised.value)


def test_database_without_tables_says_what_to_run(postgres):
    settings = LogSettings(database_url=postgres.url)

    with closing(open_log_for_reading(settings)) as reader:
        with pytest.raises(ContractError, match=r"ops\.predictions migrate"):
            list(reader.batches())
        with pytest.raises(ContractError, match=r"ops\.predictions migrate"):
            reader.contracts()
