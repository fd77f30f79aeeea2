"""Any table of a supported format becomes the same text; any other is refused in words."""

import gzip
import io
import json
import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from contract.errors import ContractError
from contract.features import Contract
from contract.read_table import Table, read_table
from contract.schema import find_failures, to_typed
from tests.example import CONTRACT, ROOT, WITH_GAPS, as_text, make_params, make_rows

DATA = make_params().data
ROWS = make_rows(12)
GAPPY = Contract.model_validate(WITH_GAPS)
HEADER = "area,rooms,heating,condition,rent"
STUDENTS = [ROOT / "data/sample/students.csv", ROOT.parent / "shared/data/students.csv"]


def read(source, contract: Contract = CONTRACT, **settings) -> Table:
    return read_table(DATA.model_copy(update={"source": str(source), **settings}), contract)


def read_text(text: str, folder: Path, suffix: str = ".csv", **settings) -> pd.DataFrame:
    path = folder / f"flats{suffix}"
    path.write_bytes(text.encode())
    return read(path, **settings).rows


def refusal(source, **settings) -> str:
    with pytest.raises(ContractError) as error:
        read(source, **settings)
    return str(error.value)


def refusal_of(content: bytes, name: str, folder: Path, **settings) -> str:
    """Give the message about a file, without its folder."""
    (folder / name).write_bytes(content)
    return refusal(folder / name, **settings).replace(f"{folder}/", "")


def write_csv(rows: pd.DataFrame, path: Path, **options) -> None:
    rows.to_csv(path, index=False, **options)


def write_jsonl(rows: pd.DataFrame, path: Path) -> None:
    rows.to_json(path, orient="records", lines=True, double_precision=15)


WRITERS = {
    "flats.csv": write_csv,
    "flats.CSV": write_csv,
    "flats.txt": write_csv,
    "flats.tsv": partial(write_csv, sep="\t"),
    "flats.csv.gz": write_csv,
    "flats.tsv.gz": partial(write_csv, sep="\t"),
    "flats.parquet": lambda rows, path: rows.to_parquet(path, index=False),
    "flats.with.dots": lambda rows, path: rows.to_parquet(path, index=False),
    "flats.xlsx": lambda rows, path: rows.to_excel(path, index=False),
    "flats.jsonl": write_jsonl,
    "flats.ndjson": write_jsonl,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("contract", [CONTRACT, GAPPY], ids=["plain", "gaps"])
def test_every_format_gives_the_same_rows(name, contract, tmp_path):
    rows = make_rows(12, contract=contract)
    WRITERS[name](rows, tmp_path / name)

    table = read(tmp_path / name, contract)

    typed = to_typed(table.rows, contract).reset_index(drop=True)
    pd.testing.assert_frame_equal(typed, rows.reset_index(drop=True))
    assert table.n_columns == 5
    assert set(table.rows.dtypes.astype(str)) == {"str"}


@pytest.mark.parametrize("name", WRITERS)
def test_first_row_has_its_line_in_the_source(name, tmp_path):
    WRITERS[name](ROWS, tmp_path / name)

    table = read(tmp_path / name)

    first = 1 if table.format in ("parquet", "jsonl") else 2  # a header stands above the rows
    assert table.rows.index.tolist() == list(range(first, first + 12))
    assert table.rows.index.name == "line"


def test_suffix_in_a_query_does_not_count_and_format_can_be_set(tmp_path):
    write_csv(ROWS, tmp_path / "flats.dat")

    assert "ends in '.dat', expected one of .csv, " in refusal(tmp_path / "flats.dat")
    assert read(tmp_path / "flats.dat", format="csv").format == "csv"


def test_both_spellings_of_a_column_are_read_blanks_round_them_too(tmp_path):
    old = ROWS.rename(columns={"heating": "type of heating", "rent": " monthly rent "})
    write_csv(old, tmp_path / "old.csv")
    write_csv(ROWS, tmp_path / "new.csv")

    pd.testing.assert_frame_equal(read(tmp_path / "old.csv").rows, read(tmp_path / "new.csv").rows)


def test_columns_come_in_the_order_of_the_contract_and_others_are_dropped(tmp_path):
    more = ROWS.assign(agent='Ms, "Smith"\nJr', heating2="x")[::1].iloc[:, ::-1]
    write_csv(more, tmp_path / "flats.csv")

    table = read(tmp_path / "flats.csv")

    assert table.rows.columns.tolist() == HEADER.split(",")
    assert table.n_columns == 7
    assert table.rows["heating"].tolist() == ROWS["heating"].tolist()


@pytest.mark.parametrize("separator", list(",;\t|"))
def test_usual_separators_are_found(separator, tmp_path):
    write_csv(ROWS, tmp_path / "flats.csv", sep=separator)

    assert read(tmp_path / "flats.csv").rows["heating"].tolist() == ROWS["heating"].tolist()


@pytest.mark.parametrize("separator", list(" :§"))
def test_any_other_separator_can_be_set(separator, tmp_path):
    write_csv(ROWS, tmp_path / "flats.csv", sep=separator)

    assert "lacks area, rooms, heating" in refusal(tmp_path / "flats.csv")
    table = read(tmp_path / "flats.csv", separator=separator)
    assert table.rows["heating"].tolist() == ROWS["heating"].tolist()


def test_separator_is_found_by_the_names_of_columns_not_by_its_frequency(tmp_path):
    text = "area;rooms;heating;condition;rent;a,b,c,d,e,f,g\n80;3;gas;good;900;1,2,3,4,5,6,7\n"

    assert read_text(text, tmp_path).iloc[0].tolist() == ["80", "3", "gas", "good", "900"]


def test_decimal_comma_is_found_in_numbers_alone(tmp_path):
    text = f"{HEADER}\n80,5;3;gas;good;900\n71;2;gas, oil;fair;812,75\n".replace(",", ";", 4)

    rows = read_text(text, tmp_path)

    assert rows["area"].tolist() == ["80.5", "71"]
    assert rows["rent"].tolist() == ["900", "812.75"]
    assert rows["heating"].tolist() == ["gas", "gas, oil"]


def test_decimal_mark_can_be_set_and_the_other_one_is_then_no_number(tmp_path):
    text = f"{HEADER}\n80,5;3;gas;good;1.500\n".replace(",", ";", 4)

    by_comma = read_text(text, tmp_path, decimal=",")
    by_point = read_text(text, tmp_path, decimal=".")

    assert (by_comma["area"].item(), by_point["area"].item()) == ("80.5", "80,5")
    assert find_failures(by_comma, CONTRACT)["column"].tolist() == ["rent"]
    assert find_failures(by_point, CONTRACT)["column"].tolist() == ["area"]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("80,5;3;gas;good;900.5", "writes numbers both as 1,5 and as 1.5"),
        ("80,5;3;gas;good;.5", "writes numbers both as 1,5 and as 1.5"),
        ("80;3;gas;good;1,500", "writes numbers as 1,234, which may mean 1234 or 1.234"),
        ("120,250;3;gas;good;-1,500", "writes numbers as 1,234, which may mean 1234 or 1.234"),
    ],
)
def test_ambiguous_decimal_mark_is_refused_until_it_is_set(cells, reason, tmp_path):
    content = f"{HEADER}\n{cells}\n".replace(",", ";", 4).encode()

    message = refusal_of(content, "flats.csv", tmp_path)

    assert message.startswith(f"flats.csv {reason}")
    assert "Set data.decimal in params.yaml" in message
    assert len(read(tmp_path / "flats.csv", decimal=",").rows) == 1


@pytest.mark.parametrize("cell", ["0,500", "1500,250", "80,50", "80,5000"])
def test_comma_that_cannot_part_thousands_is_a_decimal_mark(cell, tmp_path):
    text = f"{HEADER}\n{cell};3;gas;good;1,500\n".replace(",", ";", 4)

    assert read_text(text, tmp_path)["rent"].item() == "1.500"


def test_decimal_point_is_left_alone(tmp_path):
    text = f'{HEADER}\n80.5,3,"gas, oil",good,9e2\n'

    assert read_text(text, tmp_path).iloc[0].tolist() == ["80.5", "3", "gas, oil", "good", "9e2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_is_recognised(encoding, tmp_path):
    bom = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}.get(encoding, "")
    text = f"{bom}{HEADER},Ort\n80,3,gas,größe 📏,900,Köln\n"
    (tmp_path / "flats.csv").write_bytes(text.encode(encoding))

    rows = read(tmp_path / "flats.csv").rows

    assert rows.iloc[0].tolist() == ["80", "3", "gas", "größe 📏", "900"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_other_encoding_is_refused_with_its_line_and_read_when_it_is_set(suffix, tmp_path):
    if suffix == ".csv":
        text = f"{HEADER}\n80,3,gas,gut,900\n80,3,gas,groß,900\n"
    else:
        row = {"area": 80, "rooms": 3, "heating": "gas", "condition": "gut", "rent": 900}
        lines = [row, row, row | {"condition": "groß"}]
        text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    content = text.encode("latin-1")

    message = refusal_of(content, f"flats{suffix}", tmp_path)

    assert message == (
        f"flats{suffix}, line 3: byte 0xdf is not utf-8. "
        "Set data.encoding in params.yaml to the file's, such as latin-1 or cp1252."
    )
    rows = read(tmp_path / f"flats{suffix}", encoding="latin-1").rows
    assert rows["condition"].tolist()[-1] == "groß"


def test_unknown_encoding_is_refused(tmp_path):
    message = refusal_of(HEADER.encode(), "flats.csv", tmp_path, encoding="latin-17")

    assert message.startswith("data.encoding is 'latin-17', expected auto or a name Python knows")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
@pytest.mark.parametrize("gap", [0, 1, 3])
def test_lines_are_counted_past_blank_ones_and_quoted_breaks(end, gap, tmp_path):
    row = "80,3,gas,good,900"
    lines = [""] * gap + [f"{HEADER},note", f"{row},a", "", f'{row},"b', 'c"', f"{row},d"]
    lines += ["  ", ",,,,,", f'{row},"""e"" ', "", 'f"', f"{row},g", "", ""]

    rows = read_text(end.join(lines), tmp_path)

    assert (rows.index - gap).tolist() == [2, 4, 6, 9, 12]


def test_line_break_inside_a_cell_of_no_text_file_moves_no_line(tmp_path):
    rows = ROWS.assign(note="a\nb")
    for name in ("flats.parquet", "flats.xlsx", "flats.jsonl"):
        WRITERS[name](rows, tmp_path / name)
        lines = read(tmp_path / name).rows.index
        assert lines.tolist() == list(range(lines[0], lines[0] + 12))


def test_blank_rows_of_a_sheet_and_blank_lines_of_json_move_no_line(tmp_path):
    sheet = pd.DataFrame(
        [[None] * 5, HEADER.split(","), [80, 3, "gas", "good", 900], [None] * 5, [1, 2, 3, 4, 5]]
    )
    sheet.to_excel(tmp_path / "flats.xlsx", index=False, header=False)
    row = '{"area": 80, "rooms": 3, "heating": "gas", "condition": "good", "rent": 900}'
    (tmp_path / "flats.jsonl").write_text(f"\n{row}\n\n\n{row}\n")

    assert read(tmp_path / "flats.xlsx").rows.index.tolist() == [3, 5]
    assert read(tmp_path / "flats.jsonl").rows.index.tolist() == [2, 5]


def test_words_of_params_and_empty_cells_are_gaps_and_no_other_word_is(tmp_path):
    text = f"{HEADER}\nNA, ,null,NaN,N/A\n80,,None,n/a,none\n"

    rows = read_text(text, tmp_path, contract=GAPPY)

    assert rows.isna().to_numpy().tolist() == [[True] * 5, [False, True, False, False, False]]
    assert rows.iloc[1].tolist()[2:] == ["None", "n/a", "none"]
    assert read_text(text, tmp_path, missing=()).iloc[0].tolist()[2:] == ["null", "NaN", "N/A"]


def test_row_of_gaps_beside_another_columns_value_stays_and_is_told(tmp_path):
    rows = read_text(f"{HEADER},id\n80,3,gas,good,900,1\n,,,,,2\n,,,,,\n", tmp_path)

    assert rows.index.tolist() == [2, 3]
    assert len(find_failures(rows, CONTRACT)) == 5


@pytest.mark.parametrize("name", ["flats.parquet", "flats.xlsx", "flats.jsonl"])
def test_numbers_that_are_categories_keep_their_names_beside_gaps(name, tmp_path):
    rows = pd.DataFrame({"floor": pd.array([1, None, 2], "Int64"), "rent": [900, 800, 700.5]})
    contract = Contract.model_validate(
        {
            "target": {"name": "rent"},
            "features": [
                {"name": "floor", "kind": "ordinal", "categories": ["1", "2"], "missing": True}
            ],
        }
    )
    if name == "flats.jsonl":
        (tmp_path / name).write_text('{"floor": 1, "rent": 9}\n{"rent": 8}\n{"floor":2,"rent":7}')
    else:
        WRITERS[name](rows, tmp_path / name)

    table = read(tmp_path / name, contract)

    assert table.rows["floor"].fillna("").tolist() == ["1", "", "2"]
    assert len(find_failures(table.rows, contract)) == 0


def test_parquet_of_other_types_is_read_by_its_values_and_told_where_they_do_not_fit(tmp_path):
    other = pd.DataFrame(
        {
            "area": np.array([80.5, 71], dtype=np.float32),
            "rooms": [3.0, 2.0],
            "heating": pd.Categorical(["gas", "district"]),
            "condition": [True, False],
            "rent": pd.to_datetime(["2024-01-01", "2024-02-01"]),
        }
    )
    other.to_parquet(tmp_path / "flats.parquet")

    rows = read(tmp_path / "flats.parquet").rows

    failures = find_failures(rows, CONTRACT)
    assert failures[["line", "column", "value"]].to_numpy().tolist() == [
        [1, "condition", "True"],
        [1, "rent", "2024-01-01 00:00:00"],
        [2, "condition", "False"],
        [2, "rent", "2024-02-01 00:00:00"],
    ]


def test_column_that_pandas_kept_as_the_index_of_a_parquet_is_found(tmp_path):
    ROWS.set_index("heating").to_parquet(tmp_path / "flats.parquet")

    assert read(tmp_path / "flats.parquet").rows["heating"].tolist() == ROWS["heating"].tolist()


def test_header_and_one_row_of_a_sheet_are_read(tmp_path):
    ROWS.head(1).to_excel(tmp_path / "flats.xlsx", index=False)

    rows = read(tmp_path / "flats.xlsx").rows

    assert rows.to_numpy().tolist() == as_text(ROWS.head(1)).to_numpy().tolist()


@pytest.mark.parametrize("table", [path for path in STUDENTS if path.exists()])
def test_students_are_read_under_either_spelling(table, tmp_path):
    from contract.params import load_params

    contract = load_params(ROOT / "params.yaml").contract
    students = pd.read_csv(table, keep_default_na=False)
    former = {
        column.name: column.former_names[0] for column in contract.columns if column.former_names
    }
    write_csv(students.rename(columns=former), tmp_path / "former.csv")

    rows = read(tmp_path / "former.csv", contract).rows

    pd.testing.assert_frame_equal(rows, read(table, contract).rows)
    assert len(find_failures(rows, contract)) == 0


def xlsx_of(rows: list[list]) -> bytes:
    content = io.BytesIO()
    pd.DataFrame(rows).to_excel(content, index=False, header=False)
    return content.getvalue()


ROW = "80,3,gas,good,900"
PARQUET = io.BytesIO()
ROWS.to_parquet(PARQUET)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.csv", b"", "f.csv is empty, expected a table with a header."),
        ("f.csv", b" \n\n", "f.csv is empty, expected a table with a header."),
        ("f.csv.gz", gzip.compress(b"", mtime=0), "f.csv.gz is empty, expected a table with"),
        ("f.xlsx", b"", "f.xlsx is empty, expected a table with a header."),
        ("f.csv", HEADER.encode(), "f.csv holds a header only, expected rows below it."),
        ("f.csv", f"{HEADER}\n\n,,,,\n".encode(), "f.csv holds a header only, expected rows"),
        ("f.xlsx", xlsx_of([HEADER.split(",")]), "f.xlsx holds a header only, expected rows"),
        ("f.csv", b"\xff\xfe", "f.csv lacks area, rooms, heating, condition, rent; its columns"),
        (
            "f.csv",
            b"a,b\n1,2\n",
            "f.csv lacks area, rooms, heating, condition, rent; its columns are a, b.",
        ),
        (
            "f.csv",
            b"area,heating,condition,rent\n1,2,3,4\n",
            "f.csv lacks rooms; its columns are area,",
        ),
        (
            "f.csv",
            f"{HEADER},area\n{ROW},1\n".encode(),
            "f.csv holds area twice, expected each column once.",
        ),
        (
            "f.csv",
            f"{HEADER},type of heating\n{ROW},1\n".encode(),
            "f.csv holds heating twice, expected each column once.",
        ),
        (
            "f.csv",
            f"{HEADER}\n{ROW}\n80,3,gas\n".encode(),
            "f.csv cannot be read as csv: line 3 holds 3 cells, expected 5 as the header.",
        ),
        (
            "f.csv",
            f"{HEADER}\n{ROW}\n\n{ROW},x\n".encode(),
            "f.csv cannot be read as csv: line 4 holds 6 cells, expected 5 as the header.",
        ),
        (
            "f.csv",
            f'{HEADER}\n{ROW}\n80,3,"gas,good,900\n{ROW}\n'.encode(),
            "f.csv cannot be read as csv: line 3: unexpected end of data.",
        ),
        (
            "f.csv",
            f'{HEADER}\n80,3,"gas"x,good,900\n'.encode(),
            "f.csv cannot be read as csv: line 2: ',' expected after '\"'.",
        ),
        (
            "f.csv",
            f"{HEADER}\n{ROW}\n80,3,g\0s,good,9\n".encode(),
            "f.csv, line 3: there is a NUL byte",
        ),
        (
            "f.csv",
            bytes(range(256)) * 9,
            "f.csv, line 2: byte 0x80 is not utf-8. Set data.encoding",
        ),
        ("f.xls", b"\xd0\xcf\x11\xe0", "f.xls ends in '.xls', expected one of .csv, .txt, .tsv, "),
        ("flats", HEADER.encode(), "flats ends in 'nothing', expected one of .csv, .txt, .tsv, "),
        ("f.xlsx", b"PK no zip at all", "f.xlsx cannot be read as xlsx: "),
        ("f.xlsx", xlsx_of([HEADER.split(",")])[:-300], "f.xlsx cannot be read as xlsx: "),
        ("f.xlsx", xlsx_of([[None]]), "f.xlsx cannot be read as xlsx: its first sheet is empty."),
        ("f.parquet", b"PAR1 and no more", "f.parquet cannot be read as parquet: "),
        ("f.parquet", PARQUET.getvalue()[:-50], "f.parquet cannot be read as parquet: "),
        (
            "f.csv.gz",
            gzip.compress(HEADER.encode(), mtime=0)[:-9],
            "f.csv.gz is a broken gzip file: Compressed file ended",
        ),
        (
            "f.csv.gz",
            gzip.compress(ROW.encode() * 9, mtime=0)[:20] + b"\xff" * 20,
            "f.csv.gz is a broken gzip file: ",
        ),
        (
            "f.jsonl",
            b'{"area": 80}\n\n{"area": 80,\n',
            "f.jsonl cannot be read as jsonl: line 3 is no JSON: Expecting property name",
        ),
        (
            "f.jsonl",
            b'{"area": 80}\n[1, 2]\n',
            "f.jsonl cannot be read as jsonl: line 2 is '[1, 2]', expected an object.",
        ),
        (
            "f.jsonl",
            b'{"area": 80}\n',
            "f.jsonl lacks rooms, heating, condition, rent; its columns are area.",
        ),
    ],
)
def test_broken_file_is_refused_in_words(name, content, message, tmp_path):
    assert refusal_of(content, name, tmp_path).startswith(message)


def test_missing_file_and_folder_are_refused_in_words(tmp_path):
    assert refusal(tmp_path / "none.csv") == (
        f"{tmp_path}/none.csv does not exist. Correct data.source in params.yaml."
    )
    assert refusal(tmp_path) == f"{tmp_path} is a folder, expected a file. Name one of its files."


@pytest.mark.parametrize("name", ["flats.parquet", "flats.xlsx", "flats.csv.gz", "flats.jsonl"])
def test_damaged_file_is_either_read_or_refused_in_words(name, tmp_path):
    WRITERS[name](ROWS, tmp_path / name)
    content, draws = (tmp_path / name).read_bytes(), random.Random(0)

    for _ in range(60):
        damaged = bytearray(content[: draws.choice([None, draws.randrange(1, len(content))])])
        for _ in range(draws.randrange(20)):
            damaged[draws.randrange(len(damaged))] = draws.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            read(tmp_path / name)
        except ContractError as error:
            assert str(tmp_path / name) in str(error)


class Site(SimpleHTTPRequestHandler):
    """A web server that says nothing of its requests, and fails when told to."""

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/broken"):
            self.send_error(500)
        else:
            super().do_GET()


@pytest.fixture
def site(tmp_path) -> Iterator[str]:
    """The address of a web server of this test's folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(tmp_path)))
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["flats.csv", "flats.csv.gz", "flats.parquet"])
def test_web_address_is_read_like_a_file(name, site, tmp_path):
    WRITERS[name](ROWS, tmp_path / name)

    table = read(f"{site}/{name}?version=2#top" if name == "flats.csv" else f"{site}/{name}")

    pd.testing.assert_frame_equal(table.rows, read(tmp_path / name).rows)


def test_web_address_that_answers_with_an_error_or_not_at_all_is_refused_in_words(site):
    def why(source: str) -> str:
        return refusal(source).removeprefix(f"{source} does not exist or cannot be had: ")

    assert why(f"{site}/none.csv").startswith("404, message='File not found'")
    assert why(f"{site}/broken.csv").startswith("500, message='Internal Server Error'")
    assert why("http://127.0.0.1:9/flats.csv").startswith("Cannot connect to host 127.0.0.1:9")
    assert refusal("nowhere://flats.csv").startswith("nowhere://flats.csv cannot be read: ")


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    """An S3 server with one bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="flats")
    yield "flats"
    server.stop()


def test_s3_address_is_read_like_a_file_and_a_missing_one_is_refused(bucket, tmp_path):
    write_csv(ROWS, tmp_path / "flats.csv")
    boto3.client("s3").upload_file(str(tmp_path / "flats.csv"), bucket, "new/flats.csv")

    rows = read(f"s3://{bucket}/new/flats.csv").rows

    pd.testing.assert_frame_equal(rows, read(tmp_path / "flats.csv").rows)
    assert "does not exist" in refusal(f"s3://{bucket}/none.csv")
    assert "s3://nobody/flats.csv " in refusal("s3://nobody/flats.csv")
