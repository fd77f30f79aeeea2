"""What is left of a damaged log: every row on a page that can be had, and nothing else."""

import json
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.predictions.log import PredictionLog
from contract.predictions.outbox import Outbox
from contract.predictions.salvage import COLUMNS, Salvage
from tests.contract.predictions.test_outbox import add_old
from tests.logged import GAS, append, describe

PAGE = 4096


def salvaged(path: Path, table: str = "predictions") -> list[tuple]:
    with Salvage(path) as salvage:
        return [values for name, values in salvage.rows() if name == table]


def logged(path: Path, table: str = "predictions") -> list[tuple]:
    names = ", ".join(COLUMNS[table])
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {names} FROM {table} ORDER BY seq").fetchall()


def fill(log: PredictionLog, n_rows: int = 300) -> None:
    describe(log)
    for first in range(n_rows):
        append(log, [GAS | {"area": first}], first=first / 7)
    log.reject("form", {("area", "missing"): 2})


@pytest.fixture
def copied(log, path, tmp_path) -> Path:
    """A log as it is while it is open: most is in its WAL."""
    fill(log)
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", tmp_path / f"copy{suffix}")
    return tmp_path / "copy"


def test_all_rows_of_all_tables_are_found_as_they_are(copied, path):
    for table in COLUMNS:
        assert salvaged(copied, table) == logged(path, table)


def test_wal_that_has_lost_its_head_gives_the_rows_behind_the_hole(copied, path):
    wal = Path(f"{copied}-wal")
    content = wal.read_bytes()
    hole = 32 + (len(content) // PAGE // 2) * (PAGE + 24)
    wal.write_bytes(bytes(hole) + content[hole:])

    found, all_rows = salvaged(copied), logged(path)
    assert set(found) <= set(all_rows)
    assert all_rows[-1] in found


def test_rows_that_were_copied_into_the_main_file_are_found_there(log, path):
    fill(log)
    log.close()

    assert not Path(f"{path}-wal").exists()
    assert len(salvaged(path)) == 300
    assert salvaged(path) == logged(path)


@pytest.mark.parametrize("n_characters", [3_900, 4_020, 4_100, 9_000, 100_000])
def test_rows_that_go_on_in_other_pages_are_found(n_characters, log, path):
    log.describe("v", json.dumps({"text": "ß" * (n_characters // 6)}))
    append(log, [GAS | {"heating": "x" * n_characters}, GAS])

    assert salvaged(path) == logged(path)
    assert salvaged(path, "models") == logged(path, "models")


NUMBERS = st.floats(allow_nan=False) | st.none() | st.integers(-(2**63), 2**63 - 1)


@given(numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS), text=st.text(st.characters(codec="utf-8")))
def test_any_value_comes_back(numbers, text, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "log.db"
    add_old(path, 1, days=0)
    with closing(sqlite3.connect(path)) as connection:
        statement = "UPDATE predictions SET prediction=?, lower=?, upper=?, request_id=?"
        connection.execute(statement, (*numbers, text))
        connection.commit()

    assert salvaged(path) == logged(path)


@pytest.mark.parametrize("kept", ["nothing", "one page", "half"])
def test_what_the_wal_holds_is_found_though_the_main_file_is_cut(kept, copied, path):
    n_bytes = {"nothing": 0, "one page": PAGE, "half": copied.stat().st_size // 2}[kept]
    os.truncate(copied, n_bytes)

    assert salvaged(copied) == logged(path)
    copied.unlink()
    assert salvaged(copied) == logged(path)


def test_rows_of_lost_pages_are_missing_and_all_others_are_found(path):
    add_old(path, 3_000, days=1)
    whole = logged(path)
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)

    with Salvage(path) as salvage:
        found = [values for _, values in salvage.rows()]
        assert salvage.n_missing > 10
    assert 1_000 < len(found) < 2_000
    assert set(found) <= set(whole)


def test_pages_are_taken_from_before_the_last_copy_where_there_is_no_other(log, path):
    fill(log)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(RESTART)")
    append(log, [GAS])  # begins the WAL anew, over the first of the frames that were copied
    rows = logged(path)
    shutil.copy(f"{path}-wal", f"{path}.copy.wal")

    found = salvaged(Path(f"{path}.copy"))

    assert set(found) <= set(rows)
    assert rows[-1] in found
    assert len(found) > 250


def test_pruned_rows_are_not_brought_back(log, path):
    add_old(path, 2_000, days=40)
    fill(log, 3)
    with closing(Outbox(path, None)) as outbox:
        outbox.prune(30)

    assert salvaged(path) == logged(path)


def test_uncommitted_rows_are_not_brought_back(copied, path):
    wal = Path(f"{copied}-wal")
    n_frames = (wal.stat().st_size - 32) // (PAGE + 24)
    os.truncate(wal, 32 + (n_frames - 1) * (PAGE + 24))  # without the last commit

    assert salvaged(copied) == logged(path)
    assert (len(logged(path, "rejections")), salvaged(copied, "rejections")) == (1, [])


@pytest.mark.parametrize("seed", range(20))
def test_noise_costs_the_rows_that_it_hits_and_invents_none(seed, path):
    add_old(path, 2_000, days=1)
    whole = logged(path)
    random.seed(seed)
    content = bytearray(path.read_bytes())
    for _ in range(10):
        start = random.randrange(len(content))
        n_bytes = random.choice([1, 8, 5_000])
        noise = random.randbytes(len(content[start : start + n_bytes]))
        content[start : start + n_bytes] = noise
    path.write_bytes(content)

    found = salvaged(path)

    assert len(found) > 1_000
    assert len({*found} - {*whole}) <= 10  # a letter of a text may be another


@pytest.mark.parametrize("content", [b"", b"SQLite", b"a,b\n1,2\n" * 9_999])
def test_file_of_something_else_gives_nothing(content, path):
    path.write_bytes(content)

    assert salvaged(path) == []
