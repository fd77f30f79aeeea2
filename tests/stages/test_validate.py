"""Rows held against the contract: broken ones stop the run, all told at once."""

import json

import numpy as np
import pandas as pd
import pytest

from contract.figures import read_figures
from contract.rows import read_rows, write_rows
from stages import validate
from stages.start import StageError
from tests.example import CONTRACT, WITH_GAPS, as_text, make_rows, write_params


def broken(n_broken: int, n_rows: int = 60) -> pd.DataFrame:
    table = as_text(make_rows(n_rows))
    table.loc[2 : n_broken + 1, "area"] = "huge"
    return table


def test_good_rows_come_out_typed_with_their_lines(project):
    write_rows(as_text(make_rows(60)), validate.ROWS)

    validate.main()

    pd.testing.assert_frame_equal(read_rows(validate.VALID_ROWS), make_rows(60))
    assert read_figures(validate.METRICS) == {
        "n_rows": 60,
        "n_gaps": dict.fromkeys(["area", "rooms", "heating", "condition", "rent"], 0),
        "n_failures": 0,
        "failures_by_rule": {},
        "failures": [],
    }


def test_permitted_gaps_are_counted_by_column(project):
    contract = write_params({"contract": WITH_GAPS}).contract
    rows = make_rows(60, contract=contract)
    write_rows(as_text(rows), validate.ROWS)

    validate.main()

    gaps = {name: int(n) for name, n in rows.isna().sum().items()}
    assert read_figures(validate.METRICS)["n_gaps"] == gaps
    assert 0 not in [gaps[name] for name in contract.names()]
    pd.testing.assert_frame_equal(read_rows(validate.VALID_ROWS), rows)


def test_broken_rows_stop_the_run_with_a_table_of_all_that_is_wrong(project):
    table = broken(1)
    table.loc[5, "heating"] = None
    table.loc[9, "condition"] = "bad"
    write_rows(table, validate.ROWS)

    with pytest.raises(StageError) as error:
        validate.main()

    told = [line.split() for line in str(error.value).splitlines()]
    assert told[:5] == [
        ["flats.csv:", "3", "values", "break", "the", "contract."],
        ["line", "column", "value", "rule"],
        ["2", "area", "huge", "a", "number"],
        ["5", "heating", "may", "not", "be", "empty"],
        ["9", "condition", "bad", "one", "of", "poor,", "fair,", "good"],
    ]
    assert "Correct the lines, or widen the contract" in str(error.value)
    assert not validate.VALID_ROWS.exists()


def test_report_of_broken_rows_is_valid_json_that_names_each(project):
    table = broken(2)
    table.loc[5, "heating"] = None
    write_rows(table, validate.ROWS)

    with pytest.raises(StageError):
        validate.main()

    text = validate.METRICS.read_text("utf-8")
    report = json.loads(text, parse_constant=pytest.fail)
    assert report["n_failures"] == 3
    assert report["failures_by_rule"] == {"area: a number": 2, "heating: may not be empty": 1}
    assert report["failures"][2] == {
        "line": 5,
        "column": "heating",
        "value": None,
        "rule": "may not be empty",
    }


def test_message_and_report_stay_readable_however_much_is_wrong(project):
    write_rows(broken(1500, 2000), validate.ROWS)

    with pytest.raises(StageError, match=r"1500 values break the contract") as error:
        validate.main()

    assert str(error.value).count("huge") == validate.N_TOLD
    assert "... and 1480 more" in str(error.value)
    report = read_figures(validate.METRICS)
    assert (report["n_failures"], len(report["failures"])) == (1500, validate.N_RECORDED)


def test_report_sums_up_without_touching_the_disk(project):
    failures = pd.DataFrame(
        {"line": [3, 4], "column": ["area"] * 2, "value": ["a", np.nan], "rule": ["x", "y"]}
    )

    report = validate.report(as_text(make_rows(5)), failures)

    assert report["failures_by_rule"] == {"area: x": 1, "area: y": 1}
    assert list(report["n_gaps"]) == [column.name for column in CONTRACT.columns]
