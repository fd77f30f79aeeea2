"""recover: what was set aside of a damaged log comes back into it."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from contract.predictions.damage import files_aside
from tests.logged import GAS, append, deliver
from tests.ops.predictions.test_keeping import local_ids


def damage(log, path) -> Path:
    """Cut the file while it is open, and let the log notice; give what was set aside."""
    os.truncate(path, 4096)
    append(log, [GAS])
    (aside,) = files_aside(path)
    return aside


def test_rows_come_back_once_and_are_delivered(ops, log, path, database):
    ids = append(log, [GAS] * 700)
    deliver(path, database.url)
    ids += append(log, [GAS] * 5)
    aside = damage(log, path)
    assert f"{aside.name} may hold more: `python -m ops.predictions recover" in ops("stats").out

    told = ops("recover", aside)

    assert told.code == 0
    assert "705 rows found, 705 of them new in predictions.db" in told.out
    assert "may hold more" not in ops("stats").out
    assert sorted(local_ids(path))[:705] == ids
    done = path.with_name(aside.name.replace("damaged", "recovered"))
    assert f"What was set aside is now {done}" in told.out
    again = ops("recover", done)
    assert "705 rows found, 0 of them new in predictions.db" in again.out
    assert ops("ship").code == 0
    assert database.execute("SELECT count(*) FROM predictions") == [(706,)]


def test_stats_remind_of_what_was_set_aside_without_a_database_too(ops, log, path):
    append(log, [GAS])
    name = damage(log, path).name

    assert f"`python -m ops.predictions recover {name}` brings it back" in ops("stats").out
    assert json.loads(ops("stats", "--json").out)["set_aside"] == [name]


def test_lost_pages_are_told(ops, log, path):
    append(log, [GAS] * 3_000)
    log.close()
    aside = path.with_name("aside.db")
    path.rename(aside)
    os.truncate(aside, aside.stat().st_size // 2)

    told = ops("recover", aside)

    assert told.code == 0
    assert "are lost, with what they held" in told.err
    assert 1_000 < len(local_ids(path)) < 2_000
    assert aside.exists()  # nobody set it aside, so that nobody renames it


def test_what_cannot_be_recovered_says_why(ops, log, path, tmp_path):
    append(log, [GAS])
    Path("flats.csv").write_text("area\n72\n")
    with closing(sqlite3.connect("flats.db")) as other:
        other.execute("CREATE TABLE flats (rent REAL)")

    for file, why in {
        "predictions.db": "is the log itself",
        "missing.db": "does not exist",
        tmp_path: "is no file",
        "flats.csv": "holds no rows of a prediction log",
        "flats.db": "holds no rows of a prediction log",
    }.items():
        told = ops("recover", file)
        assert (told.code, told.out) == (1, "")
        assert why in told.err


@pytest.mark.parametrize("setting", ["off", "flats.db"])
def test_log_into_which_nothing_can_be_recovered_is_named(setting, ops, log, path, monkeypatch):
    append(log, [GAS])
    aside = damage(log, path)
    with closing(sqlite3.connect("flats.db")) as other:
        other.execute("CREATE TABLE flats (rent REAL)")
    monkeypatch.setenv("PREDICTION_LOG", setting)

    told = ops("recover", aside)

    assert told.code == 1
    assert ("PREDICTION_LOG is off" if setting == "off" else "of another program") in told.err
    assert aside.exists()
