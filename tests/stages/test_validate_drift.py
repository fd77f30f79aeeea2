"""Rows held against the reference: drift stops the run, beside what breaks the contract."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contract.errors import ContractError
from contract.features import Contract
from contract.figures import read_figures
from contract.profile import REFERENCE
from contract.profiler import axes_of, make_profile
from contract.rows import write_rows
from stages import validate
from stages.start import StageError
from tests.example import (
    AREA,
    CONTRACT,
    HEATING,
    PLAIN,
    RENT,
    WITH_GAPS,
    as_text,
    make_rows,
    write_params,
)

ROWS = make_rows(1000)


def accept(rows: pd.DataFrame = ROWS, contract: Contract = CONTRACT) -> None:
    REFERENCE.write_text(make_profile(rows, axes_of(contract)).to_json(), "utf-8")


def run(rows: pd.DataFrame) -> dict:
    """Validate rows; give metrics/drift.json, read as strictly as JSON is meant."""
    write_rows(as_text(rows), validate.ROWS)
    try:
        validate.main()
    finally:
        told = validate.DRIFT.read_text("utf-8")
    return json.loads(told, parse_constant=pytest.fail)


def refusal(rows: pd.DataFrame) -> str:
    with pytest.raises(StageError) as error:
        run(rows)
    assert not validate.VALID_ROWS.exists()
    return str(error.value)


def pictures() -> list[str]:
    return sorted(path.name for path in validate.DRIFT_PLOTS.glob("*.svg"))


def test_without_a_reference_nothing_is_measured_and_the_command_is_told(project):
    assert run(ROWS) == {
        "status": "Drift was not measured: data/reference.json holds no reference yet. See what "
        "these rows look like, and accept them: python -m ops.accept"
    }
    assert [path.name for path in validate.DRIFT_PLOTS.iterdir()] == ["measures.csv"]
    assert validate.VALID_ROWS.exists()


def test_rows_like_the_reference_pass_and_all_measures_are_recorded(project):
    accept()
    noise = np.random.default_rng(0).normal(0, 3, 1000)

    drift = run(ROWS.assign(area=(ROWS["area"] + noise).clip(8, 500)))

    assert (drift["n_reference_rows"], drift["n_rows"], drift["n_fail"]) == (1000, 1000, 0)
    assert set(drift["columns"]) == {column.name for column in CONTRACT.columns}
    assert drift["columns"]["area"]["kolmogorov_smirnov_p"] > 0.05
    table = pd.read_csv(validate.DRIFT_PLOTS / "measures.csv")
    assert table["of_limit"].is_monotonic_decreasing
    assert pictures() == []


def test_drifted_column_stops_the_run_with_measure_value_limit_and_the_two_ways_on(project):
    accept()

    told = refusal(ROWS.assign(area=(ROWS["area"] / 3 + 8).round(1)))

    assert "flats.csv has drifted from the reference (1000 rows accepted, 1000 compared)." in told
    assert "  area: difference of means -1." in told
    assert ", limit 0.35 (mean 11" in told
    assert "Correct the data; or, if the world has changed, accept it as the new reference" in told
    assert "python -m ops.accept" in told
    assert "break the contract" not in told
    assert pictures() == ["01-area.svg"]
    assert read_figures(validate.DRIFT)["findings"][0]["action"] == "fail"


def test_one_report_names_what_breaks_the_contract_and_what_drifted(project):
    accept()
    rows = ROWS.assign(area=(ROWS["area"] / 3 + 8).round(1), heating=ROWS["heating"])
    rows.loc[2:61, "heating"] = "coal"

    told = refusal(rows)

    assert "60 values break the contract" in told
    assert "heating: unseen share 0.06, limit " in told
    assert "(coal)" in told
    assert "area: difference of means" in told
    assert pictures() == ["01-area.svg", "03-heating.svg"]


def test_rows_that_cannot_be_read_are_left_out_of_the_comparison(project):
    accept()
    table = as_text(ROWS)
    table.loc[2:101, "area"] = "huge"
    table.loc[102:111, "rent"] = "inf"
    write_rows(table, validate.ROWS)

    with pytest.raises(StageError, match="110 values break the contract") as error:
        validate.main()

    assert "drifted" not in str(error.value)
    assert read_figures(validate.DRIFT)["n_rows"] == 890


def test_no_readable_row_and_no_row_at_all_are_said(project):
    accept()
    with pytest.raises(StageError, match="1000 values break the contract"):
        run(ROWS.astype({"area": object}).assign(area="huge"))
    status = "Drift was not measured: there is no row whose numbers can be read."
    assert read_figures(validate.DRIFT) == {"status": status}

    assert run(ROWS.head(0)) == {"status": status}


def test_few_rows_warn_and_pass(project, caplog):
    accept()

    drift = run(ROWS.head(100).assign(area=9.0))

    assert (drift["n_fail"], drift["n_warn"] > 0) == (0, True)
    assert "Near to drift, or too few rows to say (1000 rows accepted, 100 compared)" in caplog.text
    assert "area: " in caplog.text
    assert validate.VALID_ROWS.exists()
    assert run(ROWS.head(1))["n_warn"] == 0


def test_switched_off_it_says_so(project):
    accept(ROWS.assign(area=9.0))
    write_params({"drift.enabled": False})

    assert run(ROWS)["status"].startswith("Drift was not measured: drift.enabled is false")


def test_reference_of_another_contract_is_compared_on_what_both_have(project, caplog):
    garden = {"name": "garden", "kind": "nominal", "categories": ["yes", "no"]}
    features = [AREA, HEATING | {"kind": "ordinal"}, garden]
    contract = Contract.model_validate({"target": RENT, "features": features})
    accept(ROWS.assign(garden="yes"), contract)

    drift = run(ROWS)

    assert (drift["n_fail"], set(drift["columns"])) == (0, {"area", "rent"})
    assert drift["not_compared"] == [
        "The reference has garden, the contract has not.",
        "The reference was made without rooms, condition.",
        "The reference holds as another kind: heating (ordinal, now nominal).",
    ]
    assert {*drift["not_compared"]} <= {*caplog.messages}


def test_reference_of_quite_another_contract_is_said_to_be_none(project):
    garden = {"name": "garden", "kind": "nominal", "categories": ["yes", "no"]}
    contract = Contract.model_validate({"target": RENT | {"name": "price"}, "features": [garden]})
    accept(ROWS.assign(garden="yes", price=ROWS["rent"]), contract)

    drift = run(ROWS)

    assert drift["status"].startswith("Drift was not measured: data/reference.json and the rows ")
    assert "The reference has garden, price, the contract has not." in drift["not_compared"]


def test_wider_contract_alone_is_no_drift(project):
    accept()
    categories = {"categories": [*HEATING["categories"], "coal"]}
    features = [AREA | {"range": [0, 900]}, *PLAIN["features"][1:]]
    features[2] = HEATING | categories
    write_params({"contract": PLAIN | {"features": features}})

    assert run(ROWS)["n_fail"] == 0
    told = refusal_of_new_category()
    assert "heating: unseen share" in told
    assert "break the contract" not in told


def refusal_of_new_category() -> str:
    validate.VALID_ROWS.unlink()
    return refusal(ROWS.assign(heating=ROWS["heating"].mask(np.arange(1000) % 10 == 0, "coal")))


@pytest.mark.parametrize("text", ['{"n_rows": 5}', "[]", "", '{"format": 1, "n_rows": '])
def test_damaged_reference_is_refused_before_any_work(text, project):
    REFERENCE.write_text(text)
    write_rows(as_text(ROWS), validate.ROWS)

    with pytest.raises(ContractError, match=r"data/reference\.json is not a whole profile"):
        validate.main()

    assert not validate.METRICS.exists()


def test_empty_reference_and_columns_without_a_value_are_said(project):
    accept(ROWS.head(0))
    drift = run(ROWS)
    assert (drift["n_reference_rows"], drift["n_fail"]) == (0, 0)
    assert "area has no value in the reference." in drift["not_compared"]

    contract = write_params({"contract": WITH_GAPS}).contract
    accept(ROWS, contract)
    told = refusal_of_all_gaps()
    assert "area: change of gaps 1, limit 0.05 (0.0% -> 100.0% missing)" in told
    drift = read_figures(validate.DRIFT)
    assert drift["not_compared"] == ["area has no value in the rows."]
    assert pictures() == ["01-area.svg"]


def refusal_of_all_gaps() -> str:
    validate.VALID_ROWS.unlink()
    return refusal(ROWS.assign(area=np.nan))


def test_constant_columns_pass_and_a_change_of_them_stops(project):
    rows = ROWS.assign(area=50.0, heating="gas")
    accept(rows)

    assert run(rows)["n_fail"] == 0
    validate.VALID_ROWS.unlink()
    assert "area: " in refusal(rows.assign(area=55.0))


def test_pictures_are_the_same_each_time_and_hold_no_markup_of_the_data(project):
    accept()
    rows = ROWS.assign(heating=ROWS["heating"].mask(np.arange(1000) % 5 == 0, "<b>&"))

    refusal(rows)
    first = {path.name: path.read_bytes() for path in validate.DRIFT_PLOTS.iterdir()}
    refusal(rows)

    assert first == {path.name: path.read_bytes() for path in validate.DRIFT_PLOTS.iterdir()}
    svg = Path(validate.DRIFT_PLOTS / "03-heating.svg").read_text("utf-8")
    assert "&lt;b&gt;&amp; (unseen)" in svg
    assert "<b>" not in svg
