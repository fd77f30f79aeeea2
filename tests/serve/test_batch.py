"""A CSV in, the same rows with predictions out."""

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.artifact import Interval, Model, Predictions, make_manifest
from contract.encoding import row_encoder
from contract.features import Contract
from serve.answer import round_significant
from serve.batch import Batch, read_batch
from serve.check import Check
from serve.columns import check_column
from serve.errors import CheckError, Problem, ServeError, StorageError, TooLargeError, UploadError
from serve.logged import as_json
from serve.serving import store_all
from serve.upload import CHUNK_BYTES, Limits
from tests.contract.strategies import NO_NUMBERS, broken_cells_of, contracts, rows_of, values_of
from tests.example import CONTRACT, PLAIN, ROOMS, WITH_GAPS, as_text, make_rows

CHECK = Check(CONTRACT)
GAPPY = Check(Contract.model_validate(WITH_GAPS))
LIMITS = Limits(max_bytes=50_000_000, max_columns=20, max_rows=1_000_000)
HEADER = "area,rooms,heating,condition\n"
ROW = "80.5,3,gas,good\n"
WRONG = "9999,3,coal,good\n"


def make_model(contract: Contract = CONTRACT, weight: float = 10.0) -> Model:
    """Make a model that adds up a row's numbers, times `weight`, gaps as 0."""
    manifest = make_manifest(
        {
            "format": "onnx",
            "model": "none",
            "files": {},
            "contract": contract,
            "clip": False,
            "interval": Interval(level=0.9, half_width=1.5),
            "candidate": "sum",
            "score": "r2_score",
            "metrics": {},
            "test_rows_sha256": "",
            "libraries": {},
        }
    )
    return Model(manifest, lambda X: weight * np.nan_to_num(X).sum(axis=1))


def read(content: str | bytes, check: Check = CHECK, **options) -> Batch:
    content = content.encode() if isinstance(content, str) else content
    return read_batch(io.BytesIO(content), check, options.pop("limits", LIMITS), **options)


def answer(content: str | bytes, **options) -> str:
    return b"".join(read(content, **options).answer(make_model())).decode()


def table(text: str, separator: str = ",") -> list[dict]:
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))


def problems_of(content: str | bytes, **options) -> list[Problem]:
    with pytest.raises(CheckError) as caught:
        read(content, **options)
    return caught.value.problems


def told(content: str | bytes, **options) -> list[tuple]:
    return [(each.row, each.field, each.value) for each in problems_of(content, **options)]


def refusal(content: str | bytes, error: type[ServeError] = UploadError, **options) -> str:
    with pytest.raises(error) as caught:
        read(content, **options)
    return str(caught.value)


def test_rows_come_back_as_sent_with_prediction_and_interval():
    assert answer(HEADER + ROW + "100,1,electric,poor\n") == (
        "area,rooms,heating,condition,prediction,lower,upper\n"
        "80.5,3,gas,good,855,853.5,856.5\n"
        "100,1,electric,poor,1030,1028.5,1031.5\n"
    )


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_answer_has_the_form_of_the_file(separator, line_end, bom):
    plain = answer(HEADER + ROW * 2)

    def spelled(text: str) -> str:
        return bom + text.replace(",", separator).replace("\n", line_end)

    assert answer(spelled(HEADER + ROW * 2)) == spelled(plain)
    assert answer(spelled(HEADER + ROW * 2).rstrip()) == spelled(plain)
    assert answer(gzip.compress(spelled(HEADER + ROW * 2).encode())) == spelled(plain)


def test_columns_may_stand_in_any_order_with_others_between_them():
    text = 'note,condition,rent,area,note,heating,rooms\n"a, ""b""\nc",good,-1,80.5,x,gas,3\n'

    assert answer(text) == (
        "note,condition,rent,area,note,heating,rooms,prediction,lower,upper\n"
        '"a, ""b""\nc",good,-1,80.5,x,gas,3,855,853.5,856.5\n'
    )


def test_former_names_are_accepted_and_come_back_as_sent():
    header = HEADER.replace("heating", "type of heating").replace("area", " area ")

    assert answer(header + ROW).startswith(header.strip("\n") + ",prediction,lower,upper\n")


def test_sent_columns_named_like_new_ones_are_kept_as_input():
    text = answer("prediction,input_prediction,upper,error," + HEADER + "1,2,3,4," + ROW)

    (row,) = table(text)
    assert row["prediction"] == "855"
    assert (row["input_input_prediction"], row["input_prediction"]) == ("1", "2")
    assert (row["input_upper"], row["error"]) == ("3", "4")


def test_sent_error_column_is_kept_beside_ours():
    (row,) = table(answer("error," + HEADER + "4," + ROW, on_error="skip"))

    assert (row["input_error"], row["error"]) == ("4", "")


def test_feature_named_like_a_new_column_still_feeds_the_model():
    contract = Contract.model_validate(PLAIN | {"features": [ROOMS | {"name": "upper"}]})

    assert answer("upper\n3\n", check=Check(contract)) == (
        "input_upper,prediction,lower,upper\n3,30,28.5,31.5\n"
    )


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "=1,2", '="x"'])
def test_formulas_are_escaped_in_columns_that_the_contract_does_not_call_numbers(cell):
    sent = io.StringIO()
    writer = csv.writer(sent)
    writer.writerow(["=id", "rent", "area", "rooms", "heating", "condition"])
    writer.writerow([cell, "-5", "80.5", "+3", "gas", "good"])

    (row,) = table(answer(sent.getvalue()))

    assert row["'=id"] == f"'{cell}"
    assert (row["rent"], row["rooms"], row["prediction"]) == ("-5", "+3", "855")


def test_formula_in_a_column_of_numbers_is_escaped_too():
    (row,) = table(answer("rent," + HEADER + "=1+1,-80,+3e0,@x,=good\n", on_error="skip"))

    assert (row["rent"], row["area"], row["rooms"]) == ("'=1+1", "-80", "+3e0")
    assert (row["heating"], row["condition"]) == ("'@x", "'=good")


def test_negative_predictions_are_numbers():
    chunks = read(HEADER + ROW).answer(make_model(weight=-10.0))

    assert b"".join(chunks).endswith(b"80.5,3,gas,good,-855,-856.5,-853.5\n")


def test_wrong_rows_are_told_by_line_and_column_and_nothing_else_happens():
    text = HEADER + ROW + WRONG + ROW + "80,2.5,gas,\n"

    assert told(text) == [
        (3, "area", "9999"),
        (3, "heating", "coal"),
        (5, "rooms", "2.5"),
        (5, "condition", None),
    ]


def test_lines_are_those_of_an_editor_after_blank_lines_and_line_ends_in_cells():
    text = (
        '\n"no\nte",' + HEADER + '\n"two\r\nlines",' + ROW + "\r\n\n"
        'x,80,3,"ga\ns",good\n"a\n\nb",80,3,gas,bad\n,,,,\nx,80,3,gas,bad\n'
    )

    assert told(text) == [
        (9, "heating", "ga\ns"),
        (11, "condition", "bad"),
        (15, "condition", "bad"),
    ]


def test_lines_are_right_in_every_chunk():
    rows = [ROW] * 100_000
    rows[::33_333] = [WRONG] * 4

    assert [row for row, field, _ in told(HEADER + "".join(rows)) if field == "area"] == [
        2,
        33_335,
        66_668,
        100_001,
    ]


def test_first_hundred_problems_are_told_and_all_are_counted():
    with pytest.raises(CheckError) as caught:
        read(HEADER + WRONG * 20_000)

    assert len(caught.value.problems) == 100
    assert [each.row for each in caught.value.problems[:4]] == [2, 2, 3, 3]
    assert caught.value.total == 40_000
    assert caught.value.counts == {
        ("area", "out_of_range"): 20_000,
        ("heating", "unknown_category"): 20_000,
    }


def test_ids_of_what_was_logged_come_back_if_asked_for():
    batch = read("prediction_id," + HEADER + "7,80.5,,gas,good\n" + f"8,{ROW}" * 2, on_error="skip")

    text = b"".join(batch.answer(make_model(), lambda values, _: ["id-1", "id-2"], with_ids=True))

    rows = table(text.decode())
    assert [*rows[0]][-2:] == ["prediction_id", "error"]
    assert [row["prediction_id"] for row in rows] == ["", "id-1", "id-2"]
    assert [row["input_prediction_id"] for row in rows] == ["7", "8", "8"]


def test_ids_are_blank_where_nothing_is_logged():
    text = b"".join(read(HEADER + ROW).answer(make_model(), with_ids=True)).decode()

    assert text == (
        f"{HEADER.strip()},prediction,lower,upper,prediction_id\n80.5,3,gas,good,855,853.5,856.5,\n"
    )


def test_wrong_rows_come_back_in_place_with_an_error_if_they_are_to_be_skipped():
    batch, log = read(HEADER + ROW + "80.5,,Gas,good\n" + ROW, on_error="skip"), []

    text = b"".join(batch.answer(make_model(), lambda values, _: log.extend(values)))

    assert text.decode() == (
        "area,rooms,heating,condition,prediction,lower,upper,error\n"
        "80.5,3,gas,good,855,853.5,856.5,\n"
        "80.5,,Gas,good,,,,\"rooms: required, expected 1 to 12; heating is 'Gas', "
        'expected one of gas, district, electric; did you mean gas?"\n'
        "80.5,3,gas,good,855,853.5,856.5,\n"
    )
    assert len(log) == 2
    assert batch.n_rows == 3
    assert batch.counts == {("rooms", "missing"): 1, ("heating", "unknown_category"): 1}


def test_file_of_wrong_rows_only_comes_back_without_a_prediction():
    rows = table(answer(HEADER + WRONG * 3, on_error="skip"))

    assert [row["prediction"] for row in rows] == ["", "", ""]


@given(data=st.data())
def test_each_row_is_predicted_and_logged_as_if_it_came_alone(data):
    contract = data.draw(contracts())
    check, model, encode_row = Check(contract), make_model(contract), row_encoder(contract)
    drawn = data.draw(st.lists(rows_of(contract), min_size=1, max_size=5))
    rows = [{name: row[name] for name in contract.names()} for row in drawn]
    rows = [row for row in rows if any(value is not None for value in row.values())]
    sent = io.StringIO()
    writer = csv.DictWriter(sent, contract.names(), delimiter=data.draw(st.sampled_from(",;\t")))
    writer.writeheader()
    writer.writerows(rows)
    log = []

    if rows:
        batch = read(sent.getvalue(), check)
        for _ in batch.answer(model, lambda values, told: log.append((values, told))):
            pass

    stored = [as_json(values, contract, store_all(contract)) for values, _ in log]
    features = [json.loads(text) for chunk in stored for text in chunk.to_pylist()]
    prediction = [value for _, told in log for value in told.prediction]
    assert features == rows
    assert prediction == [model.predict(encode_row(row)).prediction[0] for row in rows]


def odd_numbers() -> st.SearchStrategy[str]:
    """Draw numbers in all spellings, and what only looks like one."""
    digits = st.text("0123456789", max_size=20)
    parts = (
        st.sampled_from(["", " ", "\t", "\r\n", "\u00a0", "\x1f", "\u2003"]),
        st.sampled_from(["", "+", "-", "--", "−"]),  # noqa: RUF001, a minus sign of typesetters
        digits,
        st.sampled_from(["", ".", ",", "_", "٣", "d", "x"]),
        digits,
        st.sampled_from(["", "e1", "E-2", "e+3", "e999", "e-999", "e", "f", "%", " "]),
    )
    words = ["nan", "NaN", "-inf", "INF", "Infinity", "0x1F", "1_0", "1e5", "+5", "null", "true"]
    return st.tuples(*parts).map("".join) | st.sampled_from([*words, *NO_NUMBERS])


@given(data=st.data())
def test_whole_columns_get_the_verdict_of_the_row_check(data):
    contract = data.draw(contracts())
    check = Check(contract)
    feature = data.draw(st.sampled_from(contract.features))
    right = values_of(feature).map(lambda value: "" if value is None else str(value))
    broken = broken_cells_of(feature).map(lambda pair: pair[0] or "")
    spelled = st.sampled_from([str, str.upper, str.title, " {} ".format, "+{}".format])
    near = st.tuples(right, spelled).map(lambda pair: pair[1](pair[0]))
    cells = data.draw(st.lists(right | near | broken | odd_numbers() | st.text(max_size=5)))

    column = check_column(pa.array(cells, pa.string()), feature, check)

    alone = Contract(target=contract.target, features=[feature])
    for place, cell in enumerate(cells):
        by_itself = check_column(pa.array([cell]), feature, check)
        assert by_itself.problems.get(0) == column.problems.get(place)
        try:
            row = Check(alone).text_row({feature.name: cell})
        except CheckError as error:
            assert column.problems[place] == error.problems[0]
        else:
            assert place not in column.problems
            X = row_encoder(alone)(row)
            np.testing.assert_array_equal(column.values[[place]].astype(np.float32), X[0])
            np.testing.assert_array_equal(by_itself.values, column.values[[place]])


@given(st.floats(1e-9, 1e15) | st.floats(-1e15, -1e-9) | st.just(0.0))
def test_numbers_are_rounded_as_text_is(value):
    text = f"{value:.6g}"

    rounded = round_significant(np.array([value]))[0]

    # multiplied by a power of ten, a number may come to lie on a half
    assert rounded == pytest.approx(float(text), rel=1.1e-5)
    assert float(f"{rounded:.6g}") == rounded


def test_odd_predictions_are_written_too():
    values = np.array([0.0, -0.0, np.nan, np.inf, 1e-310, 1e300, 66.28260803, 123456789.0])

    assert np.array_equal(
        round_significant(values),
        [0, 0, np.nan, np.inf, 0, 1e300, 66.2826, 123457000],
        equal_nan=True,
    )


def test_gaps_are_blank_cells_where_the_contract_permits_them():
    batch, log = read("id," + HEADER + "1,, ,,\n2," + ROW, GAPPY), []

    text = b"".join(batch.answer(make_model(), lambda values, _: log.extend(values)))

    assert text.decode().splitlines()[1] == "1,, ,,,0,-1.5,1.5"
    assert np.isnan(log[0]).all()


def test_line_of_separators_is_a_blank_line():
    assert len(table(answer(HEADER + ROW + ",,,\n" + ROW + ",,,\n"))) == 2


def many(row: str = ROW, n_rows: int = 150_000) -> str:
    return HEADER + row * n_rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n \n\t\n", "is empty"),
        ("\ufeff", "is empty"),
        (HEADER, "holds a header only"),
        (HEADER + "\n\r\n", "holds a header only"),
        (HEADER + ROW + "80,3,gas\n" + ROW + "1,2,3,4,5\n", "line 3 has 3, line 5 has 5"),
        (many() + "80,3,gas\n", "line 150002 has 3"),
        (many('"80",3,gas,good\n') + "80,3\n" + many(), "line 150002 has 2"),
        (HEADER.replace("\n", ",\n") + ROW, "The header has 5 cells, but line 2 has 4"),
        (HEADER + ROW + '80,"3,gas,good\n' + ROW * 3, r"line 3 has 2. Is a quotation mark"),
        (HEADER + '80,3,"gas\n","good\n' + ROW * 3, "The last cell begins in line 3"),
        (many() + '80,"3,gas,good\n' + ROW * 100_000, "begins in line 150002 is longer"),
        ("x" * 3_000_000, "header cannot be read"),
        ("x,y" * 300_000, "The first line is longer than"),
        (HEADER + ROW + "8" * 3_000_000, "row that begins in line"),
        ((HEADER + ROW).encode("utf-16"), "Line 1 holds a NUL byte"),
        ((HEADER + ROW).encode("utf-16-be"), "Line 1 holds a NUL byte"),
        (many() + "80,3,g\0s,good\n", "Line 150002 holds a NUL byte"),
        ((many() + "80,3,gäs,good\n").encode("latin-1"), "Line 150002 holds bytes that are no"),
        ((HEADER + "80,3,gä").encode()[:-1], "Line 2 holds bytes that are no UTF-8"),
        (random.Random(1).randbytes(5000), "expected CSV. Save the table as CSV UTF-8"),
        (gzip.compress(many().encode())[:-9], "broken gzip"),
        (b"\x1f\x8bnothing", "broken gzip"),
        (gzip.compress(gzip.compress(many().encode())), "expected CSV"),
        (
            HEADER.replace("area", "type of heating") + ROW,
            "Two columns hold heating: 'type of heating' and 'heating'",
        ),
        (HEADER.replace("area", "heating") + ROW, "Two columns hold heating"),
    ],
)
def test_what_is_no_table_is_refused_with_the_place_where_it_is_none(content, words):
    message = refusal(content)

    assert words in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (many(n_rows=10_000), "larger than 100,000 bytes."),
        (gzip.compress(many(n_rows=10_000).encode()), "larger than 100,000 bytes unpacked."),
        (gzip.compress(bytes(10**8)), "larger than 100,000 bytes unpacked."),
        (HEADER + "1,2,3,4\n" * 1001, "over 1,000 rows"),
        (",".join(map(str, range(21))) + "\n", "21 columns, expected 20 or fewer"),
        (",".join(map(str, range(10_000))) + "\n", "10,000 columns"),
    ],
)
def test_too_much_is_refused_before_it_is_held(content, words):
    limits = Limits(max_bytes=100_000, max_columns=20, max_rows=1000)

    assert words in refusal(content, TooLargeError, limits=limits)


@pytest.mark.parametrize("content", ["area,rooms,gas\n", "[{}]", "area|rooms|heating\n8|3|gas\n"])
def test_missing_columns_are_told_with_what_the_file_has(content):
    problems = problems_of("\n" + content)

    assert {each.rule for each in problems} == {"missing"}
    assert {each.row for each in problems} == {2}
    assert content.split("\n")[0].split(",")[0] in problems[0].reason


def test_column_may_not_be_left_out_even_where_gaps_are_permitted():
    (problem,) = problems_of("area,rooms,heeting,heating\n,,,\n", check=GAPPY)

    assert problem.field == "condition"


@given(content=st.binary() | st.text(",;\t\n\r\"' =-.5eaä\0").map(lambda text: HEADER + text))
def test_any_bytes_are_answered_or_refused_in_words(content):
    try:
        text = answer(content, on_error="skip")
    except ServeError as error:
        assert str(error)
    else:
        assert text.startswith(HEADER.strip())


def test_file_that_cannot_be_wound_back_is_read_too():
    class Pipe(io.BytesIO):
        def read(self, n_bytes: int = -1) -> bytes:
            return super().read(min(n_bytes, 1000))  # and gives less than it was asked for

        def seek(self, *_):
            raise io.UnsupportedOperation

    batch = read_batch(Pipe(many(n_rows=20_000).encode()), CHECK, LIMITS)

    assert len(b"".join(batch.answer(make_model())).splitlines()) == 20_001


def test_rows_are_logged_before_they_leave_and_a_log_that_fails_stops_the_answer():
    events = []

    def append(values: np.ndarray, told: Predictions) -> None:
        assert len(values) == len(told.prediction)
        events.append("log")
        if len(events) == 5:
            raise OSError("no room")

    def listen(chunks: Iterator[bytes]) -> None:
        for _ in chunks:
            events.append("answer")

    with pytest.raises(OSError, match="no room"):
        listen(read(many()).answer(make_model(), append))
    assert events == ["log", "answer", "log", "answer", "log"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_nothing_stays_open_whether_the_answer_is_read_or_left_or_never_begun():
    n_before = open_files()

    for _ in read(many()).answer(make_model()):
        pass
    left = read(many()).answer(make_model())
    next(left)
    left.close()
    read(many()).close()
    refusal(HEADER + ROW + "1\n")
    told(HEADER + WRONG)

    assert open_files() == n_before


def test_full_disk_is_told_as_the_server_s_fault(monkeypatch):
    monkeypatch.setattr("serve.batch.TemporaryFile", partial(Path.open, Path("/dev/full"), "wb"))

    assert "No space left on device" in refusal(many(), StorageError)
    assert StorageError.status == 503


def test_two_uploads_at_once_do_not_mix():
    files = [HEADER + f"{area},3,gas,good\n" * 50_000 for area in (80, 90)]
    one, other = (read(text).answer(make_model()) for text in files)

    both = list(zip(one, other, strict=True))

    assert len(both) > 1
    assert all(b"\n80,3" in a and b"90,3" not in a for a, _ in both)
    assert all(b"\n90,3" in b and b"80,3" not in b for _, b in both)


def test_large_file_takes_little_memory(tmp_path):
    path = tmp_path / "rows.csv"
    rows = as_text(make_rows(20_000)).to_csv(index=False)
    header, body = rows.split("\n", 1)
    with path.open("w") as file:
        file.write(header + "\n")
        file.writelines([body] * 10)
    program = """
import sys
from pathlib import Path
from tests.serve.test_batch import CHECK, LIMITS, make_model, read_batch

def peak_mib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

def run(content):
    with content as file:
        batch = read_batch(file, CHECK, LIMITS)
    size = sum(len(chunk) for chunk in batch.answer(make_model(), lambda *_: None))
    return batch.n_rows, size

import io
run(io.BytesIO(b"area,rooms,heating,condition\\n80.5,3,gas,good\\n"))
before = peak_mib()
n_rows, size = run(open(sys.argv[1], "rb"))
print(n_rows, size, peak_mib() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=os.environ | {"PYTHONPATH": "."},
        cwd=Path(__file__).parents[2],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )

    n_rows, size, grown_mib = map(float, done.stdout.split())
    assert n_rows == 200_000
    assert size > path.stat().st_size > 10 * CHUNK_BYTES
    assert grown_mib < 80
