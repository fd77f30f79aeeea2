"""migrate, ship and prune: what the tables get, and what leaves the log."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Timer

import pytest

from contract.artifact import FINAL, Interval, make_manifest, write_artifact
from contract.predictions.log import PredictionLog
from contract.predictions.outbox import Outbox
from contract.predictions.settings import DatabaseAddress
from contract.predictions.turn import sign, take_lock
from tests.example import CONTRACT
from tests.logged import GAS, append, deliver


def local_ids(path, table: str = "predictions") -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(f"SELECT id FROM {table} ORDER BY seq")]


def make_old(path, *row_ids: str) -> list[str]:
    """Let rows have come in 2020: their times, and their ids, which begin with them."""
    old = [f"016f5e66-e800-7000-8000-{place:012x}" for place, _ in enumerate(row_ids)]
    with closing(sqlite3.connect(path)) as connection:
        statement = "UPDATE predictions SET id = ?, time = '2020-01-01T00:00:00.000Z' WHERE id = ?"
        connection.executemany(statement, zip(old, row_ids, strict=True))
        connection.commit()
    return old


def test_migrate_makes_the_tables_and_says_why_not_the_view(ops, database):
    told = ops("migrate")

    assert told.code == 0
    assert "The table predictions was made." in told.lines
    assert "not the view" in told.err
    assert "models/final/model.json does not exist" in told.err
    assert database.execute("SELECT count(*) FROM predictions") == [(0,)]
    assert "The table predictions is there." in ops("migrate").lines


@pytest.mark.parametrize("folder", [FINAL, Path("elsewhere/model")])
def test_migrate_makes_the_view_of_the_model_in_service(
    ops, log, path, database, monkeypatch, folder
):
    if folder != FINAL:
        monkeypatch.setenv("MODEL_FOLDER", str(folder))
    plain = {"format": "onnx", "model": "model.onnx", "files": {}, "contract": CONTRACT}
    plain |= {"clip": True, "interval": Interval(level=0.9, half_width=1.0), "candidate": "linear"}
    plain |= {"score": "r2_score", "metrics": {}, "test_rows_sha256": "", "libraries": {}}
    write_artifact(folder, make_manifest(plain), {})
    append(log, [GAS])

    told = ops("migrate")

    assert (told.code, told.err) == (0, "")
    deliver(path, database.url)
    query = "SELECT area, rooms, heating, condition FROM predictions_typed"
    assert database.execute(query) == [tuple(GAS.values())]


def test_ship_delivers_all_that_waits(ops, log, path, database):
    ids = append(log, [GAS] * 5_000)

    told = ops("ship")

    assert told.code == 0
    assert "5,001 of them only now" in told.out
    assert database.execute("SELECT count(*) FROM predictions") == [(len(ids),)]
    assert "0 of them only now" in ops("ship").out


def test_migrate_names_the_columns_of_a_table_that_is_not_ours(ops, database):
    database.execute("CREATE TABLE predictions (id bigint PRIMARY KEY, time timestamp, rent real)")

    told = ops("migrate")

    assert (told.code, told.out) == (1, "")
    assert told.err.count("\n") == 2  # and why there is no view
    for words in (
        "the table predictions is not ours: its column id is bigint, expected uuid,",
        "its column time is timestamp without time zone, expected timestamp with time zone,",
        "it has no column features, expected it as jsonb,",
    ):
        assert words in told.err
    assert database.execute("SELECT to_regclass('prediction_truths')") == [(None,)]


@pytest.mark.parametrize("command", ["stats", "export", "tail"])
def test_readers_of_a_table_that_is_not_ours_are_told_who_names_it(ops, database, command):
    ops("migrate")
    database.execute("ALTER TABLE predictions DROP COLUMN source")

    told = ops(command)

    assert told.code == 1
    assert "column p.source does not exist. A table of the log is not ours there" in told.err


def test_ship_says_why_it_cannot(ops, log, database):
    append(log, [GAS])
    database.execute("CREATE TABLE predictions (rent real)")

    told = ops("ship")

    assert (told.code, told.out) == (1, "")
    assert "the table predictions is not ours" in told.err


def test_ship_without_a_log_says_so(ops, database):
    told = ops("ship")

    assert told.code == 1
    assert "does not exist" in told.err


def test_ship_waits_for_the_shipper_of_the_server(ops, log, path, database):
    append(log, [GAS] * 3)
    lock = take_lock(path)
    shipper = Timer(0.5, deliver, (path, database.url))
    shipper.start()

    told = ops("ship")

    shipper.join()
    os.close(lock)
    assert told.code == 0
    assert "4 rows wait for another process to deliver them." in told.err
    assert "the server's shipper delivered them" in told.out


def test_ship_takes_over_from_a_shipper_that_ends(ops, log, path, database):
    append(log, [GAS] * 3)
    shipper = Timer(0.5, os.close, (take_lock(path),))
    shipper.start()

    told = ops("ship")

    shipper.join()
    assert "4 of them only now" in told.out


def test_ship_tells_the_problem_of_the_shipper_of_the_server(ops, log, path, database):
    append(log, [GAS])
    lock = take_lock(path)
    with closing(Outbox(path, DatabaseAddress(database.url).name)) as outbox:
        outbox.say("the password is wrong.")

    told = ops("ship")

    os.close(lock)
    assert told.code == 1
    assert "the password is wrong." in told.err


def test_ship_says_who_delivers_the_log_to_another_database(ops, log, path, database):
    append(log, [GAS])
    lock = take_lock(path)
    sign(lock, "db.example.org:5432/flats")

    told = ops("ship")

    os.close(lock)
    assert (told.code, told.out) == (1, "")
    assert f"process {os.getpid()} delivers it to db.example.org:5432/flats, so that" in told.err
    assert ops("ship").code == 0


def test_ship_lets_go_of_the_lock(ops, log, path, database):
    append(log, [GAS])
    ops("ship")

    lock = take_lock(path)
    assert lock is not None
    os.close(lock)


def test_ship_again_brings_back_what_a_restored_database_has_lost(ops, log, path, database):
    ids = append(log, [GAS] * 3)
    log.reject("form", {("area", "missing"): 1})
    deliver(path, database.url)
    database.execute("DELETE FROM predictions WHERE id = %s", ids[1])
    database.execute("TRUNCATE prediction_models, prediction_rejections")
    append(log, [GAS])

    assert "1 of them only now" in ops("ship").out
    told = ops("ship", "--again")

    assert told.code == 0
    assert "was sent 6 rows of predictions.db again; it keeps each once." in told.out
    assert database.execute("SELECT count(*) FROM predictions") == [(4,)]
    assert database.execute("SELECT count(*) FROM prediction_models") == [(1,)]
    assert database.execute("SELECT count(*) FROM prediction_rejections") == [(1,)]


def test_ship_again_begins_at_a_time(ops, log, path, database):
    ids = append(log, [GAS] * 3)
    make_old(path, *ids[:2])
    deliver(path, database.url)
    database.execute("TRUNCATE predictions, prediction_models")

    told = ops("ship", "--again", "--since", "1d")

    assert "was sent 2 rows" in told.out
    assert database.execute("SELECT id::text FROM predictions") == [(ids[2],)]
    assert database.execute("SELECT count(*) FROM prediction_models") == [(1,)]
    assert "was sent 1 rows" in ops("ship", "--again", "--since", "2999-01-01").out


def test_ship_again_works_beside_the_shipper_of_the_server(ops, log, path, database):
    append(log, [GAS] * 3)
    deliver(path, database.url)
    database.execute("TRUNCATE predictions")
    lock = take_lock(path)

    told = ops("ship", "--again")

    os.close(lock)
    assert told.code == 0
    assert database.execute("SELECT count(*) FROM predictions") == [(3,)]


def test_ship_again_passes_rows_that_the_database_cannot_take(ops, log, path, database):
    append(log, [{"heating": "\0"}, GAS])

    told = ops("ship", "--again")

    assert told.code == 0
    assert database.execute("SELECT count(*) FROM predictions") == [(1,)]
    assert "1 rows cannot be delivered" in told.err


def test_ship_since_is_for_again_alone(ops, log, database):
    told = ops("ship", "--since", "7d")

    assert (told.code, told.out) == (1, "")
    assert "--since is for --again" in told.err


def test_rows_that_cannot_be_delivered_are_told(ops, log, database):
    append(log, [GAS, {"heating": "\0"}])

    told = ops("ship")

    assert told.code == 0
    assert "1 rows cannot be delivered" in told.err
    assert "1 rows that it cannot take are kept here" in ops("stats").out


def test_prune_without_a_database_deletes_what_is_old(ops, log, path):
    ids = append(log, [GAS] * 4)
    make_old(path, *ids[:2])

    told = ops("prune", "--keep-days", "30")

    assert told.code == 0
    assert "predictions.db: 2 rows deleted." in told.out
    assert local_ids(path) == ids[2:]


def test_prune_takes_truths_along(ops, log, path, tmp_path):
    ids = append(log, [GAS] * 3)
    old = make_old(path, ids[0])
    lines = [f"{row_id},1" for row_id in (*old, *ids[1:])]
    (tmp_path / "truths.csv").write_text("\n".join(["id,truth", *lines]))
    ops("truth", "truths.csv")

    ops("prune", "--keep-days", "1")

    assert local_ids(path, "truths") == ids[1:]


def test_prune_with_a_database_keeps_what_it_has_not_got(ops, log, path, database):
    ids = append(log, [GAS] * 3)
    old = make_old(path, *ids[:2])

    told = ops("prune", "--keep-days", "1")

    assert told.code == 1  # the tables are not there yet
    assert local_ids(path) == [*old, ids[2]]
    deliver(path, database.url)
    told = ops("prune", "--keep-days", "1")
    assert "predictions.db: 2 rows deleted." in told.out
    assert local_ids(path) == ids[2:]


def test_prune_says_how_many_rows_wait(ops, log, path, database):
    ops("migrate")
    ids = append(log, [GAS] * 2)
    make_old(path, ids[0])

    told = ops("prune", "--keep-days", "1")

    assert "0 rows deleted. 3 rows wait for the database and stay" in told.out


def test_prune_deletes_in_the_database_too_with_truths_and_rejections(ops, log, path, database):
    ids = append(log, [GAS] * 3)
    old = make_old(path, *ids[:2])
    log.reject("form", {("area", "missing"): 1})
    deliver(path, database.url)
    database.execute("INSERT INTO prediction_truths VALUES (%s, now(), 1)", old[0])
    database.execute("INSERT INTO prediction_truths VALUES (%s, '2020-01-01', 1)", ids[2])
    database.execute(
        "INSERT INTO prediction_rejections VALUES (%s, '2020-01-01', 'form', 'a', 'b', 1)", old[0]
    )

    told = ops("prune", "--keep-days", "30")

    name = DatabaseAddress(database.url).name
    assert f"{name}: 3 rows deleted." in told.lines
    assert database.execute("SELECT id::text FROM predictions") == [(ids[2],)]
    assert database.execute("SELECT id::text FROM prediction_truths") == [(ids[2],)]
    assert database.execute("SELECT count(*) FROM prediction_rejections") == [(1,)]


def test_prune_leaves_a_database_whose_role_may_not_delete(ops, log, path, database, monkeypatch):
    ids = append(log, [GAS] * 2)
    make_old(path, ids[0])
    deliver(path, database.url)
    database.execute("CREATE ROLE reader LOGIN PASSWORD 'p'")
    try:
        ops("migrate", "--grant-to", "reader")
        monkeypatch.setenv("DATABASE_URL", database.url_of("reader", "p"))

        told = ops("prune", "--keep-days", "1")
    finally:
        database.execute("DROP OWNED BY reader")
        database.execute("DROP ROLE reader")

    assert told.code == 1
    assert "nothing deleted, as its role may not. Give the owner's DATABASE_URL" in told.err
    assert "predictions.db: 1 rows deleted." in told.out
    assert database.execute("SELECT count(*) FROM predictions") == [(2,)]


def test_prune_without_a_local_file_prunes_the_database(ops, log, path, database, monkeypatch):
    ids = append(log, [GAS] * 2)
    make_old(path, ids[0])
    deliver(path, database.url)
    monkeypatch.setenv("PREDICTION_LOG", "elsewhere.db")

    told = ops("prune", "--keep-days", "1")

    assert told.lines == [f"{DatabaseAddress(database.url).name}: 1 rows deleted."]


@pytest.mark.parametrize("guarded", ["file", "file and folder"])
def test_prune_of_a_file_that_may_not_be_written_is_an_error(
    guarded, ops, guarded_folder, monkeypatch
):
    path = guarded_folder / "predictions.db"
    monkeypatch.chdir(guarded_folder)
    monkeypatch.setenv("PREDICTION_LOG", str(path))
    with closing(PredictionLog(path)) as log:
        make_old(path, append(log, [GAS] * 2)[0])
    path.chmod(0o400)
    if "folder" in guarded:
        guarded_folder.chmod(0o500)

    told = ops("prune", "--keep-days", "1")

    assert (told.code, told.out) == (1, "")
    assert f"{path}: " in told.err
    assert "attempt to write a readonly database. Make the file and its folder writable" in told.err


@pytest.mark.parametrize("days", ["-1", "many", "nan", "1e9"])
def test_days_that_are_no_number_are_refused(ops, log, days):
    told = ops("prune", f"--keep-days={days}")

    assert told.code == 2
    assert "is no number of days" in told.err
