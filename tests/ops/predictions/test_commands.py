"""python -m ops.predictions: what is wrong is told in a sentence, and nobody meets a traceback."""

import re
import signal
from datetime import UTC, datetime, timedelta

import pytest

from ops.predictions.__main__ import COMMANDS
from ops.predictions.command import parse_time
from tests.logged import GAS, append, deliver, write_log

READING = [["stats"], ["tail"], ["export"]]
ELSEWHERE = "postgresql://user:secret@127.0.0.1:1/db"


@pytest.mark.parametrize("command", [["--help"], *([each, "--help"] for each in COMMANDS)])
def test_each_command_says_what_it_is_for(ops, command):
    told = ops(*command)

    assert told.code == 0
    assert "usage: python -m ops.predictions" in told.out


@pytest.mark.parametrize("arguments", [[], ["learn"], ["tail", "-n", "0"], ["prune"]])
def test_wrong_arguments_are_told_with_the_usage(ops, arguments):
    told = ops(*arguments)

    assert told.code == 2
    assert "usage:" in told.err


@pytest.mark.parametrize("command", READING)
def test_log_that_does_not_exist_is_an_error_in_one_sentence(ops, path, command):
    told = ops(*command)

    assert told.code == 1
    assert told.out == ""
    assert told.err.startswith("ERROR: predictions.db does not exist")
    assert not path.exists()


@pytest.mark.parametrize("command", READING)
def test_log_of_no_predictions_is_said_to_be_empty(ops, log, command):
    log.reject("ready", {("", "attempt"): 0})

    told = ops(*command)

    assert told.code == 0
    assert "holds no predictions" in told.out + told.err


@pytest.mark.parametrize("command", [*READING, ["prune", "--keep-days", "1"], ["truth", "t.csv"]])
def test_file_of_another_program_is_refused_and_left(ops, path, command):
    path.write_text("a diary " * 200)

    told = ops(*command)

    assert (told.code, told.out) == (1, "")
    assert re.fullmatch(r"ERROR: predictions\.db: .*\n", told.err)
    assert path.read_text() == "a diary " * 200


@pytest.mark.parametrize("command", READING)
def test_truncated_log_is_told_to_be_damaged(ops, path, command):
    write_log(path, 5_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

    told = ops(*command, *(["-n", "5000"] if command == ["tail"] else []))

    assert told.code == 1
    assert "damaged" in told.err


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DATABASE_URL", "mysql://user:secret@host/db", "DATABASE_URL has a value"),
        ("DB_PORT", "many", "DB_PORT is 'many'"),
        ("PREDICTION_LOG_KEEP_DAYS", "-1", "PREDICTION_LOG_KEEP_DAYS is '-1'"),
        ("DB_NAME", "marks", "DB_ENDPOINT and DB_USER missing"),
    ],
)
def test_wrong_settings_are_named(ops, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)

    told = ops("stats")

    assert (told.code, told.out) == (1, "")
    assert words in told.err
    assert "secret" not in told.err


@pytest.mark.parametrize("command", [*READING, ["migrate"], ["ship"], ["truth", "truths.csv"]])
def test_database_that_is_away_is_named_without_its_password(
    ops, log, tmp_path, monkeypatch, command
):
    append(log, [GAS])
    monkeypatch.setenv("DATABASE_URL", ELSEWHERE)

    told = ops(*command)

    assert (told.code, told.out) == (1, "")
    assert "127.0.0.1:1/db" in told.err
    assert "secret" not in told.err


@pytest.mark.parametrize("command", READING)
def test_local_file_can_be_asked_though_the_database_is_away(ops, log, monkeypatch, command):
    append(log, [GAS])
    monkeypatch.setenv("DATABASE_URL", ELSEWHERE)

    assert ops(*command, "--local").code == 0


@pytest.mark.parametrize("command", [["migrate"], ["ship"]])
def test_commands_about_the_database_ask_for_one(ops, command):
    told = ops(*command)

    assert told.code == 1
    assert "DATABASE_URL" in told.err


@pytest.mark.parametrize("command", [*READING, ["prune", "--keep-days", "1"], ["truth", "t.csv"]])
def test_log_that_is_off_is_an_error(ops, monkeypatch, command):
    monkeypatch.setenv("PREDICTION_LOG", "off")

    told = ops(*command)

    assert told.code == 1
    assert "PREDICTION_LOG is off" in told.err


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:30", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20 08:30:01.5Z", datetime(2026, 11, 20, 8, 30, 1, 500_000, tzinfo=UTC)),
        ("2026-11-20T08:30+02:00", datetime(2026, 11, 20, 6, 30, tzinfo=UTC)),
    ],
)
def test_time_is_a_date_or_a_moment(text, time):
    assert parse_time(text) == time
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("7d", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("0d", timedelta(0)),
    ],
)
def test_time_may_be_so_long_ago(text, ago):
    assert abs(datetime.now(UTC) - ago - parse_time(text)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "7",
        "7x",
        "-7d",
        "1.5d",
        "99999999999d",
        "2026-13-01",
        "0001-01-01T00+09:00",
    ],
)
def test_what_is_no_time_is_refused_in_words(ops, log, text):
    told = ops("stats", f"--since={text}")

    assert told.code == 2
    assert f"{text!r} is no time, expected one such as 2026-11-20" in told.err


@pytest.mark.parametrize("command", [["export"], ["stats", "--json"], ["tail", "-n", "9000"]])
def test_reader_that_has_enough_ends_the_command_quietly(start, path, command):
    write_log(path, 9_000)

    with start(*command) as process:
        assert process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()

    assert process.returncode == 0
    assert "Error" not in err
    assert "Traceback" not in err


def test_interrupted_command_leaves_no_traceback(start, log):
    append(log, [GAS])

    with start("tail", "--follow") as process:
        assert process.stdout.readline().startswith("time (UTC)")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)

    assert (process.returncode, err) == (130, "")


def test_terminal_that_does_not_know_a_letter_gets_another(start, log):
    append(log, [GAS | {"heating": "Öl"}])

    with start("tail", PYTHONIOENCODING="ascii") as process:
        out, err = process.communicate(timeout=10)

    assert (process.returncode, err) == (0, "")
    assert "heating=?l" in out


def long_export_from(start, path, database):
    """Begin an export of a database that waits for its reader half-way."""
    write_log(path, 60_000)
    deliver(path, database.url)
    process = start("export", DATABASE_URL=database.url)
    assert process.stdout.readline().startswith('"id"')
    return process


def test_interrupt_waits_for_no_frozen_database(start, path, database):
    with long_export_from(start, path, database) as process:
        database.server.freeze()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)

    assert (process.returncode, err) == (130, "")


def test_database_that_dies_meanwhile_is_told(start, path, database):
    with long_export_from(start, path, database) as process:
        database.server.kill()
        _, err = process.communicate(timeout=10)

    assert process.returncode == 1
    assert re.fullmatch(r"ERROR: 127\.0\.0\.1:.* server closed the connection .*\n", err)
