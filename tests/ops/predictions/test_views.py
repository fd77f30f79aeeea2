"""tail and stats: what people see of the log."""

import json
import sqlite3
from contextlib import closing

import pytest

from ops.predictions import tail
from tests.logged import GAS, MODEL, append, deliver


def test_tail_shows_the_newest_the_newest_last(ops, log, place):
    append(log, [GAS] * 30, first=100)
    place()

    told = ops("tail")
    few = ops("tail", "-n", "2")

    assert len(told.lines) == 21
    assert told.lines[-1].split()[5] == "129"
    assert [line.split()[5] for line in few.lines[1:]] == ["128", "129"]


def test_tail_shows_what_was_answered(ops, log, place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (row_id,) = append(log, [GAS | {"condition": None}], first=61.23456, latency_ms=12.34)
    place()

    header, line = ops("tail").lines

    assert header.split("  ")[0] == "time (UTC)"
    for word in (row_id, MODEL, "api", "61.23", "50.73..71.73", "12.3", "area=72.5", "condition=-"):
        assert word in line


@pytest.mark.parametrize("width", [40, 80, 100, 140, 300])
def test_tail_fits_the_terminal(ops, log, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    append(log, [GAS | {f"feature {n}": "x" * 9 for n in range(20)}] * 3)

    told = ops("tail")

    assert len(told.lines) == 4
    if width >= 80:
        assert {len(line) for line in told.lines[1:]} == {width}
        assert "area=72.5" in told.lines[1]


def test_tail_shows_no_character_that_commands_a_terminal(ops, log):
    append(log, [GAS | {"heating": "\x1b[31m\n"}], source="\x1b[2J")

    told = ops("tail")

    assert len(told.lines) == 2
    assert "\x1b" not in told.out


def test_tail_follows_and_shows_each_new_row_once(start, log):
    append(log, [GAS] * 3)

    with start("tail", "-n", "2", "--follow") as process:
        lines = [process.stdout.readline() for _ in range(3)]
        append(log, [GAS] * 2, first=50)
        lines += [process.stdout.readline() for _ in range(2)]
        append(log, [GAS], first=60)
        lines.append(process.stdout.readline())
        process.terminate()

    assert [line.split()[5] for line in lines[1:]] == ["1", "2", "50", "51", "60"]


def test_tail_follows_a_database(start, log, path, database):
    append(log, [GAS])
    deliver(path, database.url)

    with start("tail", "--follow", DATABASE_URL=database.url) as process:
        process.stdout.readline(), process.stdout.readline()
        append(log, [GAS], first=50)
        deliver(path, database.url)
        line = process.stdout.readline()
        process.terminate()

    assert line.split()[5] == "50"


def test_tail_that_falls_behind_says_so(start, log):
    append(log, [GAS])

    with start("tail", "--follow") as process:
        process.stdout.readline(), process.stdout.readline()
        append(log, [GAS] * (tail.N_FOLLOWED + 1))
        lines = [process.stdout.readline() for _ in range(2)]
        process.terminate()

    assert lines[0] == "... more came than are shown here\n"
    assert lines[1].split()[5] == "1"


def test_stats_show_all_that_is_counted(ops, log, path, place, tmp_path):
    ids = append(log, [GAS | {"area": None}] + [GAS] * 3, source="batch")
    append(log, [GAS], model="ffffffffffff", latency_ms=9.0)
    log.reject("form", {("area", "out_of_range"): 3, ("", "unknown_field"): 1})
    place()
    (tmp_path / "truths.csv").write_text(f"id,truth\n{ids[0]},2\n")
    ops("truth", "truths.csv")

    told = ops("stats")

    assert told.code == 0
    for words in (
        "predictions   5   api 1  batch 4",
        "prediction    0 to 3, mean 1.2",
        "p50 1.5 ms   p95 9 ms   p99 9 ms",
        "1 attached, mean absolute error 2",
        "gaps          area 1 (20.0%)",
        "rejected      4 values",
        "3   75.0%  area  out_of_range",
        "1   25.0%  (no field of the contract)  unknown_field",
    ):
        assert words in told.out
    assert [line.split()[:2] for line in told.lines if line.startswith((MODEL, "ffff"))] == [
        [MODEL, "4"],
        ["ffffffffffff", "1"],
    ]
    bars = [line for line in told.lines if line.endswith("#")]
    assert [bar.count("#") for bar in bars] in ([40], [40, 10], [10, 40])


def test_stats_for_programs_are_json(ops, log, place):
    append(log, [GAS] * 3)
    place()

    found = json.loads(ops("stats", "--json", "--since", "1h").out)

    assert (found["n_predictions"], found["by_source"]) == (3, {"api": 3})
    assert found["since"].endswith("Z")
    assert len(found["by_hour"]) == 24


def test_stats_of_a_time_without_predictions_say_so(ops, log, path):
    append(log, [GAS])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE predictions SET time = '2026-01-01T00:00:00.000Z'")
        connection.commit()

    assert "holds no predictions of that time" in ops("stats", "--since", "1d").out
    assert "none in the last 24 hours" in ops("stats").out


def test_stats_tell_what_is_not_stored(ops, log):
    append(log, [GAS | {"area": "hash:0123"}, {}])

    told = ops("stats")

    assert "hashed        features of 1 rows" in told.out
    assert "not known of 1 rows without features" in told.out


def test_stats_tell_how_far_the_database_is_behind(ops, log, path, database):
    append(log, [GAS])
    deliver(path, database.url)
    assert ": 0 rows wait" in ops("stats").out
    append(log, [GAS] * 2)

    told = ops("stats")

    assert ": 2 rows wait, the oldest for 0 s" in told.out
    assert "predictions   1 " in told.out
    assert "predictions   3 " in ops("stats", "--local").out
