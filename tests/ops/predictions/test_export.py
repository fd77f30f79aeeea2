"""Exports: all rows, all features, each in its type, whole or not at all."""

import csv
import io
import json
import resource
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.features import Contract
from tests.example import AREA, CONDITION, HEATING, RENT, ROOMS
from tests.logged import GAS, MODEL, append, describe

BASE = ["id", "time", "model", "source", "request_id"]
BASE += ["prediction", "lower", "upper", "latency_ms", "truth"]
NEWER = "ffffffffffff"


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_has_all_that_was_logged_a_column_a_feature(ops, log, place):
    (row_id,) = append(log, [GAS], source="form", request_id="r-9", first=61.5)
    place()

    told = ops("export")

    (row,) = csv_rows(told.out)
    assert list(row) == [*BASE, "area", "rooms", "heating", "condition"]
    assert datetime.fromisoformat(row.pop("time")) <= datetime.now(UTC)
    assert row == {
        "id": row_id,
        "model": MODEL,
        "source": "form",
        "request_id": "r-9",
        "prediction": "61.5",
        "lower": "51",
        "upper": "72",
        "latency_ms": "1.5",
        "truth": "",
        "area": "72.5",
        "rooms": "3",
        "heating": "gas",
        "condition": "fair",
    }
    assert told.code == 0
    assert told.err.startswith("1 predictions of ")


def test_times_are_written_as_the_log_has_them(ops, log, path):
    append(log, [GAS])
    with closing(sqlite3.connect(path)) as connection:
        (logged,) = connection.execute("SELECT time FROM predictions").fetchone()

    assert csv_rows(ops("export").out)[0]["time"] == logged
    assert json.loads(ops("export", "--format", "jsonl").out)["time"] == logged


def test_parquet_has_types(ops, log, place, tmp_path):
    logged = append(log, [GAS, GAS | {"area": None}])
    place()

    told = ops("export", "--output", "log.parquet")

    table = pq.read_table(tmp_path / "log.parquet")
    assert told.code == 0
    assert table["id"].to_pylist() == logged
    assert table.schema.field("time").type == pa.timestamp("ms", "UTC")
    assert table["area"].to_pylist() == [72.5, None]
    assert [table.schema.field(name).type for name in ("area", "rooms", "heating", "truth")] == [
        pa.float64(),
        pa.int64(),
        pa.string(),
        pa.float64(),
    ]


def test_jsonl_keeps_the_features_as_they_are(ops, log, place):
    append(log, [GAS | {"heating": 'Öl, "alt"'}, {"garden": True}])
    place()

    rows = [json.loads(line) for line in ops("export", "--format", "jsonl").lines]

    assert [row["features"] for row in rows] == [
        GAS | {"heating": 'Öl, "alt"'},
        {"garden": True},
    ]
    assert list(rows[0]) == [*BASE, "features"]


def test_rows_of_an_older_contract_stay_beside_the_new(ops, log, place):
    older = Contract.model_validate({"target": RENT, "features": [AREA, HEATING]})
    newer = Contract.model_validate({"target": RENT, "features": [CONDITION, AREA, ROOMS]})
    describe(log, older)
    append(log, [{"area": 50.0, "heating": "gas"}])
    describe(log, newer, NEWER)
    append(log, [{"condition": "good", "area": 60.0, "rooms": 2}], model=NEWER)
    place()

    one, other = csv_rows(ops("export").out)

    names = ["condition", "area", "rooms", "heating"]
    assert list(one)[len(BASE) :] == names
    assert [one[name] for name in names] == ["", "50", "", "gas"]
    assert [other[name] for name in names] == ["good", "60", "2", ""]


def test_features_of_versions_that_are_not_in_the_window_have_no_column(ops, log):
    append(log, [GAS])
    describe(log, Contract.model_validate({"target": RENT, "features": [AREA]}), NEWER)
    append(log, [{"area": 60.0}], model=NEWER)
    with closing(sqlite3.connect(log.path)) as connection:
        connection.execute("UPDATE predictions SET time = '2026-01-01T00:00:00.000Z' WHERE seq = 1")
        connection.commit()

    (row,) = csv_rows(ops("export", "--since", "2026-02-01").out)
    (old,) = csv_rows(ops("export", "--until", "2026-02-01").out)

    assert list(row) == [*BASE, "area"]
    assert list(old)[len(BASE) :] == ["area", "rooms", "heating", "condition"]


def test_feature_that_became_text_keeps_its_numbers(ops, log):
    describe(log, Contract.model_validate({"target": RENT, "features": [ROOMS]}))
    append(log, [{"rooms": 3}])
    words = HEATING | {"name": "rooms", "former_names": []}
    describe(log, Contract.model_validate({"target": RENT, "features": [words]}), NEWER)
    append(log, [{"rooms": "gas"}], model=NEWER)

    assert [row["rooms"] for row in csv_rows(ops("export").out)] == ["3", "gas"]


def test_feature_named_like_a_column_of_the_log_is_told_apart(ops, log):
    model = HEATING | {"name": "model"}
    describe(log, Contract.model_validate({"target": RENT, "features": [model]}))
    append(log, [{"model": "gas"}])

    (row,) = csv_rows(ops("export").out)

    assert (row["model"], row["feature_model"]) == (MODEL, "gas")


def test_version_whose_contract_is_not_known_is_told(ops, log):
    append(log, [GAS])
    append(log, [{"garden": "yes"}] * 2, model="eeeeeeeeeeee")

    told = ops("export")

    assert "contract of model eeeeeeeeeeee" in told.err
    assert "2 rows" in told.err
    assert len(csv_rows(told.out)) == 3


def test_hashed_features_are_told(ops, log):
    append(log, [GAS, GAS | {"area": "hash:0011", "heating": "hash:2233"}])

    told = ops("export")

    assert "Features of 1 rows are hashed" in told.err
    assert [row["area"] for row in csv_rows(told.out)] == ["72.5", ""]
    assert [row["heating"] for row in csv_rows(told.out)] == ["gas", "hash:2233"]


def test_cell_that_a_spreadsheet_would_run_is_made_text(ops, log):
    formula = HEATING | {"name": "=heating", "categories": ["=1+1", "gas"]}
    describe(log, Contract.model_validate({"target": RENT, "features": [formula, AREA]}))
    append(log, [{"=heating": "=1+1", "area": -5.0}], request_id='@SUM("A1")')

    (row,) = csv_rows(ops("export").out)

    assert row["request_id"] == '\'@SUM("A1")'
    assert row["'=heating"] == "'=1+1"
    assert row["area"] == "-5"


def test_truth_is_a_column(ops, log, place, tmp_path):
    logged = append(log, [GAS] * 2)
    place()
    (tmp_path / "truths.csv").write_text(f"id,truth\n{logged[1]},99.5\n")
    assert ops("truth", "truths.csv").code == 0

    assert [row["truth"] for row in csv_rows(ops("export").out)] == ["", "99.5"]


def test_window_is_what_is_exported(ops, log, place):
    logged = append(log, [GAS] * 3)
    with closing(sqlite3.connect(log.path)) as connection:
        for seq, day in ((1, 10), (2, 11), (3, 12)):
            time = f"2026-11-{day}T00:00:00.000Z"
            connection.execute("UPDATE predictions SET time = ? WHERE seq = ?", (time, seq))
        connection.commit()
    place()

    told = ops("export", "--since", "2026-11-11", "--until", "2026-11-12T00:00Z")

    assert [row["id"] for row in csv_rows(told.out)] == logged[1:2]


@pytest.mark.parametrize("name", ["log.csv", "log.parquet", "log.jsonl", "log.NDJSON"])
def test_format_follows_the_ending(ops, log, tmp_path, name):
    append(log, [GAS])

    assert ops("export", "--output", name).code == 0

    start = (tmp_path / name).read_bytes()[:4]
    assert start == {"log.csv": b'"id"', "log.parquet": b"PAR1"}.get(name, b'{"id')


def test_format_that_is_named_wins_over_the_ending(ops, log, tmp_path):
    append(log, [GAS])

    ops("export", "--format", "jsonl", "--output", "log.csv")

    assert json.loads((tmp_path / "log.csv").read_text())["model"] == MODEL


def test_only_its_owner_may_read_an_export(ops, log, tmp_path):
    append(log, [GAS])

    ops("export", "--output", "log.csv")

    assert (tmp_path / "log.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "missing/log.csv"], "there is no folder missing"),
        (["--output", "."], "a folder"),
        (["--output", "log.xlsx"], "ends in '.xlsx', expected .csv, .parquet, .jsonl"),
        (["--output", "log"], "ends in 'nothing'"),
        (["--format", "parquet"], "--output"),
        (["--since", "1d", "--until", "2d"], "--until is not after --since"),
    ],
)
def test_what_cannot_be_exported_is_told_before_anything_is_written(
    ops, log, tmp_path, arguments, words
):
    append(log, [GAS])
    before = sorted(tmp_path.iterdir())

    told = ops("export", *arguments)

    assert (told.code, told.out) == (1, "")
    assert words in told.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("table_format", ["csv", "parquet", "jsonl"])
def test_export_that_fails_leaves_the_file_that_was_there(ops, log, path, tmp_path, table_format):
    append(log, [GAS] * 5_000)
    output = tmp_path / f"log.{table_format}"
    output.write_text("as it was")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))  # as a full disk
    try:
        told = ops("export", "--output", output.name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    assert told.code == 1
    assert f"{output.name} cannot be written" in told.err
    assert output.read_text() == "as it was"
    assert not [*tmp_path.glob(".*")]


@pytest.mark.parametrize("table_format", ["csv", "parquet", "jsonl"])
def test_empty_log_gives_a_header_alone(ops, log, tmp_path, table_format):
    log.reject("ready", {("", "attempt"): 0})  # which makes the file

    told = ops("export", "--output", f"log.{table_format}")

    content = (tmp_path / f"log.{table_format}").read_bytes()
    assert told.code == 0
    assert "holds no predictions to export" in told.err
    if table_format == "parquet":
        assert pq.read_table(pa.BufferReader(content)).num_rows == 0
    else:
        assert content.decode().split(",")[0] == {"csv": '"id"', "jsonl": ""}[table_format]
