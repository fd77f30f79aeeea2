"""Truths: attached to the right rows, all or none, and what is wrong with a file is told."""

import gzip
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.features import Contract
from contract.predictions.outbox import lag_of
from tests.example import AREA, RENT
from tests.logged import GAS, append, deliver, describe

STRANGE = "01a20000-0000-7000-8000-00000000000{}"


@pytest.fixture(params=["file", "database"])
def logged(request, log, path):
    """Give the ids of three predictions, in the file or in a database."""
    ids = append(log, [GAS] * 3)
    if request.param == "database":
        deliver(path, request.getfixturevalue("database").url)
    return ids


@pytest.fixture
def truths(request, path):
    """Give what looks up all truths, by id, wherever they are to be."""

    def look_up() -> dict[str, float]:
        if "database" in request.fixturenames or "database" in str(request.node.callspec.params):
            database = request.getfixturevalue("database")
            return dict(
                database.execute("SELECT id::text, truth FROM prediction_truths ORDER BY time")
            )
        return local_truths(path)

    return look_up


def local_truths(path) -> dict[str, float]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT id, truth FROM truths").fetchall())


def write(tmp_path, *lines: str, name: str = "truths.csv") -> str:
    (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
    return name


def test_truths_are_attached_by_id(ops, logged, truths, tmp_path):
    name = write(tmp_path, "id,truth", f"{logged[2]},72.5", f"{logged[0].upper()}, -0 ")

    told = ops("truth", name)

    assert told.code == 0
    assert truths() == {logged[0]: 0.0, logged[2]: 72.5}
    assert "has the truths of 2 predictions, from the column truth of truths.csv" in told.out
    assert "2 are new, 0 took the place of another, 0 were known" in told.out


def test_second_truth_takes_the_place_of_the_first(ops, logged, truths, tmp_path):
    ops("truth", write(tmp_path, "id,truth", *(f"{row_id},1" for row_id in logged[:2])))

    told = ops("truth", write(tmp_path, "id,truth", *(f"{row_id},2" for row_id in logged)))

    assert "1 are new, 2 took the place of another, 0 were known" in told.out
    assert truths() == dict.fromkeys(logged, 2.0)
    told = ops("truth", "truths.csv")
    assert "0 are new, 0 took the place of another, 3 were known" in told.out


def test_unknown_ids_are_counted_and_nothing_is_attached(ops, logged, truths, tmp_path):
    lines = [f"{STRANGE.format(place)},{place}" for place in range(7)]
    name = write(tmp_path, "id,truth", f"{logged[0]},1", *lines)

    told = ops("truth", name)

    assert (told.code, told.out) == (1, "")
    assert "7 of 8 ids are not in" in told.err
    assert f"{STRANGE.format(0)} (truths.csv, line 3)" in told.err
    assert STRANGE.format(4) in told.err
    assert STRANGE.format(5) not in told.err
    assert "--skip-unknown" in told.err
    assert truths() == {}


def test_unknown_ids_are_skipped_where_it_is_wanted(ops, logged, truths, tmp_path):
    name = write(tmp_path, "id,truth", f"{STRANGE.format(1)},9999999", f"{logged[0]},1")

    told = ops("truth", name, "--skip-unknown")

    assert told.code == 0
    assert "1 ids are not in the log and were skipped" in told.out
    assert truths() == {logged[0]: 1.0}


def test_with_a_database_truths_go_there_alone(ops, log, path, database, tmp_path):
    ids = append(log, [GAS])
    deliver(path, database.url)

    before = datetime.now(UTC)
    ops("truth", write(tmp_path, "id,truth", f"{ids[0]},5"))

    ((time,),) = database.execute("SELECT time FROM prediction_truths")
    assert before <= time <= datetime.now(UTC)
    assert local_truths(path) == {}


def test_rows_that_wait_for_the_database_are_told(ops, log, path, database, tmp_path):
    deliver(path, database.url)
    ids = append(log, [GAS])

    told = ops("truth", write(tmp_path, "id,truth", f"{ids[0]},5"))

    assert told.code == 1
    assert "rows wait to be delivered: python -m ops.predictions ship" in told.err


def test_role_that_may_only_add_attaches_truths_and_corrects_them(
    ops, log, path, database, tmp_path, monkeypatch
):
    ids = append(log, [GAS] * 2)
    deliver(path, database.url)
    database.execute("CREATE ROLE adder LOGIN PASSWORD 'p'")
    try:
        ops("migrate", "--grant-to", "adder")
        monkeypatch.setenv("DATABASE_URL", database.url_of("adder", "p"))

        first = ops("truth", write(tmp_path, "id,truth", f"{ids[0]},1"))
        second = ops("truth", write(tmp_path, "id,truth", f"{ids[0]},2", f"{ids[1]},2"))

        assert "1 are new, 0 took the place of another" in first.out
        assert "1 are new, 1 took the place of another" in second.out
        assert newest_truths(ops) == dict.fromkeys(ids, 2.0)
    finally:
        database.execute("DROP OWNED BY adder")
        database.execute("DROP ROLE adder")


def test_role_that_may_not_add_is_told_what_it_takes(
    ops, log, path, database, tmp_path, monkeypatch
):
    ids = append(log, [GAS])
    deliver(path, database.url)
    database.execute("CREATE ROLE looker LOGIN PASSWORD 'p'")
    database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
    try:
        monkeypatch.setenv("DATABASE_URL", database.url_of("looker", "p"))

        told = ops("truth", write(tmp_path, "id,truth", f"{ids[0]},1"))
    finally:
        database.execute("DROP OWNED BY looker")
        database.execute("DROP ROLE looker")

    assert told.code == 1
    assert "takes a role that may INSERT into prediction_truths" in told.err


def newest_truths(ops) -> dict[str, float]:
    """Look up truths as all readers do."""
    rows = map(json.loads, ops("export", "--format", "jsonl").out.splitlines())
    return {row["id"]: row["truth"] for row in rows}


def attach(ops, monkeypatch, tmp_path, row_id: str, truth: float, url: str = "") -> None:
    """Attach a truth in the file, or in a database."""
    monkeypatch.setenv("DATABASE_URL", url)
    assert ops("truth", write(tmp_path, "id,truth", f"{row_id},{truth}")).code == 0


def test_truth_corrected_in_the_file_reaches_the_database_that_has_the_first(
    ops, log, path, database, tmp_path, monkeypatch
):
    ids = append(log, [GAS] * 3)
    for row_id in ids:
        attach(ops, monkeypatch, tmp_path, row_id, 1)
    deliver(path, database.url)

    attach(ops, monkeypatch, tmp_path, ids[2], 2)
    attach(ops, monkeypatch, tmp_path, ids[0], 3)
    deliver(path, database.url)

    monkeypatch.setenv("DATABASE_URL", database.url)
    assert newest_truths(ops) == dict(zip(ids, [3.0, 1.0, 2.0], strict=True))
    assert json.loads(ops("stats", "--json").out)["n_truths"] == 3
    assert database.execute("SELECT count(*) FROM prediction_truths") == [(5,)]


def test_truth_that_is_delivered_again_takes_no_newer_ones_place(
    ops, log, path, database, tmp_path, monkeypatch
):
    ids = append(log, [GAS])
    attach(ops, monkeypatch, tmp_path, ids[0], 1)
    deliver(path, database.url)
    attach(ops, monkeypatch, tmp_path, ids[0], 2, database.url)

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM deliveries")
        connection.commit()
    deliver(path, database.url)

    assert newest_truths(ops) == {ids[0]: 2.0}
    assert database.execute("SELECT count(*) FROM prediction_truths") == [(2,)]


@pytest.mark.parametrize("place", ["file", "database"])
def test_correction_counts_though_the_clock_of_the_first_was_ahead(
    ops, log, path, database, tmp_path, monkeypatch, place
):
    ids = append(log, [GAS])
    attach(ops, monkeypatch, tmp_path, ids[0], 1)
    ahead = "2999-01-01T00:00:00.999Z"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE truths SET time = ?", (ahead,))
        connection.commit()
    deliver(path, database.url)

    for truth in range(2, 12):
        url = database.url if place == "database" else ""
        attach(ops, monkeypatch, tmp_path, ids[0], truth, url)
        deliver(path, database.url)

    monkeypatch.setenv("DATABASE_URL", database.url)
    assert newest_truths(ops) == {ids[0]: 11.0}
    ((latest,),) = database.execute("SELECT max(time) FROM prediction_truths")
    assert latest == datetime.fromisoformat("2999-01-01T00:00:01.009Z")


def test_correction_that_waits_is_one_row(ops, log, path, tmp_path):
    ids = append(log, [GAS] * 2)
    for truth in (1, 2, 3):
        ops("truth", write(tmp_path, "id,truth", *(f"{row_id},{truth}" for row_id in ids)))

    assert lag_of(path, "a database")[0].n_rows == 1 + 2 + 2  # the model, predictions, truths


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("truths.csv", "id;truth;note\n{0};1.5;\n{1};2;a\n"),
        ("truths.csv", "id,truth\n{0},1.5,\n{1},2,,\n"),
        ("truths.csv", "\ufeffid,truth\r\n{0},1.5\r\n{1},2\r\n"),
        ("truths.csv", '"note","truth","id"\n"a, b","1.5","{0}"\n,"2",{1}\n'),
        ("truths.csv", "id,monthly rent\n{0},1.5\n{1},2\n"),
        ("truths.csv", "id,rent,truth\n{0},7,1.5\n{1},8,2e0\n"),
        ("truths.TSV", "id\ttruth\n{0}\t1.5\n{1}\t2\n"),
        ("truths.txt", "id|truth\n{0}|1.5\n\n{1}|2\n"),
        ("truths.jsonl", '{{"id": "{0}", "truth": 1.5}}\n\n{{"truth": 2, "id": "{1}"}}'),
    ],
)
def test_table_of_any_form_is_read(ops, log, path, tmp_path, name, content):
    ids = append(log, [GAS] * 2)
    (tmp_path / name).write_text(content.format(*ids), "utf-8", newline="")

    told = ops("truth", name)

    assert (told.code, told.err) == (0, "")
    assert local_truths(path) == dict(zip(ids, [1.5, 2.0], strict=True))


@pytest.mark.parametrize("kind", [pa.float32(), pa.int64(), pa.decimal128(10, 2), pa.string()])
def test_parquet_is_read(ops, log, path, tmp_path, kind):
    ids = append(log, [GAS] * 2)
    truths = pa.array(["1", "2"]).cast(kind)
    pq.write_table(pa.table({"id": ids, "rent": truths}), tmp_path / "truths.parquet")

    told = ops("truth", "truths.parquet")

    assert "from the column rent" in told.out
    assert local_truths(path) == dict(zip(ids, [1.0, 2.0], strict=True))


def test_doubled_column_of_parquet_is_told(ops, log, path, tmp_path):
    ids = append(log, [GAS])
    columns = [pa.array(ids), pa.array([1.0]), pa.array([2.0])]
    table = pa.Table.from_arrays(columns, names=["id", "truth", "truth"])
    pq.write_table(table, tmp_path / "truths.parquet")

    told = ops("truth", "truths.parquet")

    assert told.code == 1
    assert "truths.parquet has 2 columns truth, expected one" in told.err


def test_export_can_be_given_back_with_its_truths(ops, log, path, tmp_path):
    ids = append(log, [GAS] * 2)
    ops("truth", write(tmp_path, "id,truth", *(f"{row_id},3" for row_id in ids)))
    ops("export", "--output", "log.parquet")

    assert "2 were known" in ops("truth", "log.parquet").out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("42,1", "id is '42', expected one such as an answer of the server holds"),
        (",1", "id is ''"),
        ("{0},", "the truth is blank"),
        ("{0}", "the truth is blank"),
        ("{0},  ", "the truth is blank"),
        ("{0},many", "the truth is 'many', expected a number such as 72.5"),
        ('{0},"72,5"', "the truth is '72,5'"),
        ("{0},nan", "the truth is 'nan'"),
        ("{0},1_0", "the truth is '1_0'"),
        ("{0},inf", "the truth is 'inf'"),
        ("{0},1e999", "the truth is"),
        ("{0},-1", "the truth is -1, expected rent of 0 to 20000 EUR/month"),
        ("{0},20001", "the truth is 20001"),
        ("{1},1", "id {1} is there twice, first in line 2"),
        (
            "{0},72,5",
            "it holds 3 cells, such as '5' behind the last column, expected 2; write 72",
        ),
    ],
)
def test_wrong_line_is_named_and_nothing_is_attached(ops, log, path, tmp_path, line, words):
    ids = append(log, [GAS] * 2)
    name = write(tmp_path, "id,truth", f"{ids[1]},1", line.format(*ids))

    told = ops("truth", name)

    assert (told.code, told.out) == (1, "")
    assert f"truths.csv, line 3: {words.format(*ids)}" in told.err
    assert "Nothing was attached" in told.err
    assert local_truths(path) == {}


def test_wrong_lines_are_told_together_the_first_ten_of_them(ops, log, tmp_path):
    append(log, [GAS])
    name = write(tmp_path, "id,truth", *(f"{place},1" for place in range(30)))

    told = ops("truth", name)

    assert [f"line {n}:" in told.err for n in (2, 11, 12)] == [True, True, False]
    assert "and 20 more" in told.err


def test_rows_of_parquet_and_lines_of_json_are_named(ops, log, tmp_path):
    ids = append(log, [GAS])
    pq.write_table(pa.table({"id": ids, "truth": [None]}), tmp_path / "truths.parquet")
    write(tmp_path, "", '{"id": "x", "truth": true}', name="truths.jsonl")

    assert "truths.parquet, row 1: the truth is blank" in ops("truth", "truths.parquet").err
    assert "truths.jsonl, line 2: id is 'x'" in ops("truth", "truths.jsonl").err


def test_range_is_that_of_the_model_which_predicted(ops, log, tmp_path):
    old = append(log, [GAS])
    wider = Contract.model_validate({"target": RENT | {"range": [0, 90000]}, "features": [AREA]})
    describe(log, wider, "ffffffffffff")
    new = append(log, [GAS], model="ffffffffffff")

    assert ops("truth", write(tmp_path, "id,truth", f"{new[0]},50000")).code == 0
    assert ops("truth", write(tmp_path, "id,truth", f"{old[0]},50000")).code == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("truths.csv", "", "has the columns none"),
        (
            "truths.csv",
            "id,mark\n",
            "has the columns id, mark; expected id, and one of truth, rent",
        ),
        ("truths.csv", "truth\n1\n", "has the columns truth; expected id"),
        ("truths.csv", "id,truth\n", "holds a header only"),
        ("truths.csv", "id,truth,truth\n{0},1,2\n", "has 2 columns truth, expected one. Remove or"),
        ("truths.csv", "id,truth,id\n{0},1,{0}\n", "has 2 columns id, expected one. Remove or"),
        ("truths.csv", "{0},1\n", "expected id, and one of truth, rent"),
        (
            "truths.jsonl",
            '{"id": "{0}", "truth": 1, "truth": 2}',
            "line 1 has truth twice. Remove",
        ),
        ("truths.csv", "id,truth\n{0},1\n".encode("utf-16-le"), "holds NUL characters, as UTF-16"),
        ("truths.csv", "id,truth\n{0},1\n".encode("utf-16"), "is not UTF-8"),
        (
            "truths.csv",
            b"PK\3\4\x14\0\6\0\xff",
            "is packed, as spreadsheets are, whatever",
        ),
        (
            "truths.csv",
            'id,truth\n{0},1\n{0},"2\n',
            "line 3 cannot be read as csv, nor what",
        ),
        ("truths.csv", gzip.compress(b"id,truth\n", mtime=0), "is packed, as spreadsheets are"),
        ("truths.csv", b"id,truth\n" + b"x" * 200_000 + b",1\n", "line 2 cannot be read as csv"),
        ("truths.csv", 'id,truth\n"1,2\n', "cannot be read as csv"),
        ("truths.csv", "id,truth\nÄ,1\n".encode("latin-1"), "is not UTF-8"),
        ("truths.parquet", "PAR1", "cannot be read as parquet"),
        ("truths.jsonl", "[1]\n", "truths.jsonl, line 1 is no JSON object"),
        ("truths.jsonl", "{", "truths.jsonl, line 1 is no JSON object"),
        ("truths.xlsx", "PK", "ends in '.xlsx', expected one of .csv"),
        ("truths", "", "ends in 'nothing'"),
    ],
)
def test_file_that_is_no_table_of_truths_is_told(ops, log, path, tmp_path, name, content, words):
    (row_id,) = append(log, [GAS])
    if isinstance(content, str):
        content = content.replace("{0}", row_id).encode()
    (tmp_path / name).write_bytes(content)

    told = ops("truth", name)

    assert (told.code, told.out) == (1, "")
    assert told.err.count("\n") == 1
    assert local_truths(path) == {}
    assert told.err.startswith("ERROR: truths")
    assert words in told.err


@pytest.mark.parametrize(("name", "words"), [("none.csv", "does not exist"), ("f.csv", "a folder")])
def test_file_that_is_none_is_told(ops, log, tmp_path, name, words):
    append(log, [GAS])
    (tmp_path / "f.csv").mkdir()

    told = ops("truth", name)

    assert told.code == 1
    assert words in told.err


def test_words_of_a_file_do_not_command_the_terminal(ops, log, tmp_path):
    append(log, [GAS])

    told = ops("truth", write(tmp_path, "id,truth", "\x1b[2J,1"))

    assert "\x1b" not in told.err


def test_truths_show_in_the_statistics(ops, log, tmp_path):
    ids = append(log, [GAS] * 2)  # predictions 0 and 1
    ops("truth", write(tmp_path, "id,truth", f"{ids[1]},3.5"))

    assert json.loads(ops("stats", "--json").out)["mean_absolute_error"] == 2.5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "ID", "truth": 1' + "0" * 400 + "}", "the truth is '1000"),
        ("[" * 100_000, "is no JSON object"),
    ],
)
def test_absurd_line_of_json_is_a_sentence(line, told, log, tmp_path, ops):
    (row_id,) = append(log, [GAS])
    (tmp_path / "truths.jsonl").write_text(line.replace("ID", row_id) + "\n")

    found = ops("truth", "truths.jsonl")

    assert found.code == 1
    assert told in found.err
