"""One check for three ways in: what it takes, what it refuses, and in which words."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.features import Contract
from serve.check import Check
from serve.errors import CheckError, Problem
from tests.contract.strategies import broken_cells_of, contracts, rows_of
from tests.example import AREA, CONTRACT, RENT, ROOMS, WITH_GAPS

CHECK = Check(CONTRACT)
GAPPY = Check(Contract.model_validate(WITH_GAPS))
FLAT = {"area": 80.5, "rooms": 3, "heating": "gas", "condition": "good"}
FORM = {"area": "80.5", "rooms": "3", "heating": "gas", "condition": "good"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)


def problems_of(check, *sent) -> list[Problem]:
    with pytest.raises(CheckError) as caught:
        check(*sent)
    assert caught.value.total == sum(caught.value.counts.values())
    return caught.value.problems


def told(check, *sent) -> list[tuple]:
    return [(each.field, each.value, each.reason) for each in problems_of(check, *sent)]


def features_of(row: dict, contract: Contract) -> dict:
    return {name: row[name] for name in contract.names()}


@given(data=st.data())
def test_every_row_of_the_contract_is_accepted_as_it_is(data):
    contract = data.draw(contracts())
    row = features_of(data.draw(rows_of(contract)), contract)
    sent = dict(data.draw(st.permutations(list(row.items()))))

    checked = Check(contract).json_row(sent)

    assert checked == row
    assert list(checked) == contract.names()


@given(data=st.data())
def test_form_of_a_row_is_checked_to_the_same_row(data):
    contract = data.draw(contracts())
    row = features_of(data.draw(rows_of(contract)), contract)
    blanks = st.text(" \t", max_size=2)
    form = {
        name: f"{data.draw(blanks)}{'' if value is None else value}{data.draw(blanks)}"
        for name, value in row.items()
    }

    assert Check(contract).text_row(form) == row


@given(data=st.data())
def test_cell_that_breaks_the_contract_is_refused_in_a_form(data):
    contract = data.draw(contracts())
    row = features_of(data.draw(rows_of(contract)), contract)
    broken = data.draw(st.sampled_from(contract.features))
    cell, _ = data.draw(broken_cells_of(broken))
    if broken.categories and (cell or "").strip() in (*broken.categories, ""):
        cell = "?"
    form = {name: "" if value is None else str(value) for name, value in row.items()}

    problems = problems_of(Check(contract).text_row, form | {broken.name: cell or ""})

    assert [each.field for each in problems] == [broken.name]


@given(sent=ANYTHING | st.fixed_dictionaries(dict.fromkeys(FLAT, ANYTHING)))
def test_whatever_is_sent_is_accepted_or_refused_in_words_that_json_can_carry(sent):
    try:
        checked = GAPPY.json_row(sent)
    except CheckError as error:
        text = json.dumps(error.told(), allow_nan=False, ensure_ascii=False)
        assert len(text.encode()) < 1000 * (error.total + 1)
    else:
        assert list(checked) == GAPPY.contract.names()


def test_former_name_counts_as_the_name_in_json_and_form():
    renamed = {"type of heating" if key == "heating" else key: FLAT[key] for key in FLAT}

    assert CHECK.json_row(renamed) == FLAT
    assert CHECK.text_row({key: str(value) for key, value in renamed.items()}) == FLAT


def test_name_and_former_name_together_are_one_too_many():
    (problem,) = problems_of(CHECK.json_row, FLAT | {"type of heating": "gas"})

    assert (problem.field, problem.rule) == ("type of heating", "unknown_field")


def test_gap_is_null_or_left_out_in_json_and_blank_or_left_out_in_a_form():
    gaps = dict.fromkeys(FLAT)

    assert GAPPY.json_row({}) == GAPPY.json_row(gaps) == gaps
    assert GAPPY.text_row({}) == GAPPY.text_row(dict.fromkeys(FLAT, " ")) == gaps


@pytest.mark.parametrize("whole", [3, 3.0])
def test_whole_number_may_have_a_decimal_point(whole):
    checked = CHECK.json_row(FLAT | {"rooms": whole})

    assert (checked["rooms"], type(checked["rooms"])) == (3, int)
    assert CHECK.text_row(FORM | {"rooms": str(whole)}) == checked


@pytest.mark.parametrize(
    ("field", "value", "rule", "reason"),
    [
        ("area", None, "missing", "required, expected 8 to 500 m²"),
        ("area", "80.5", "wrong_type", "expected a number, 8 to 500 m²"),
        ("area", True, "wrong_type", "expected a number, 8 to 500 m²"),
        ("area", [80], "wrong_type", "expected a number, 8 to 500 m²"),
        ("area", 9999, "out_of_range", "expected 8 to 500 m²"),
        ("area", -50, "out_of_range", "expected 8 to 500 m²"),
        ("area", math.nan, "not_finite", "expected a finite number, 8 to 500 m²"),
        ("area", math.inf, "not_finite", "expected a finite number, 8 to 500 m²"),
        ("area", 10**400, "out_of_range", "expected 8 to 500 m²"),
        ("rooms", 3.5, "not_whole", "expected a whole number, 1 to 12"),
        ("rooms", "3", "wrong_type", "expected a whole number, 1 to 12"),
        ("rooms", 10**400, "out_of_range", "expected 1 to 12"),
        ("heating", "coal", "unknown_category", "expected one of gas, district, electric"),
        (
            "heating",
            "GAS",
            "unknown_category",
            "expected one of gas, district, electric; did you mean gas?",
        ),
        ("heating", 0, "wrong_type", "expected text, one of gas, district, electric"),
        ("heating", True, "wrong_type", "expected text, one of gas, district, electric"),
        ("heating", {"a": 1}, "wrong_type", "expected text, one of gas, district, electric"),
        ("heating", None, "missing", "required, expected one of gas, district, electric"),
    ],
)
def test_value_outside_the_contract_is_refused_with_what_was_expected(field, value, rule, reason):
    (problem,) = problems_of(CHECK.json_row, FLAT | {field: value})

    assert (problem.field, problem.rule, problem.reason) == (field, rule, reason)
    json.dumps(problem.value, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("7_2", "wrong_type"),
        ("True", "wrong_type"),
        ("NaN", "wrong_type"),
        ("inf", "wrong_type"),
        ("-Infinity", "wrong_type"),
        ("0x1F", "wrong_type"),
        ("8,5", "wrong_type"),
        ("1 000", "wrong_type"),
        ("٣", "wrong_type"),
        ("\uff18", "wrong_type"),
        ("80\u00a0", "wrong_type"),
        ("8e", "wrong_type"),
        (".", "wrong_type"),
        ("1e999", "not_finite"),
        ("9" * 400, "not_finite"),
        ("-1e1", "out_of_range"),
        ("", "missing"),
    ],
)
def test_text_that_is_no_number_of_the_contract_is_refused_in_a_form(text, rule):
    (problem,) = problems_of(CHECK.text_row, FORM | {"area": text})

    assert (problem.field, problem.rule) == ("area", rule)


@pytest.mark.parametrize("text", ["80", "80.", "8e1", "+80", "0080", " 80 ", "\t80\r\n", "800E-1"])
def test_number_may_be_spelled_in_any_plain_way_in_a_form(text):
    assert CHECK.text_row(FORM | {"area": text})["area"] == 80


def test_number_of_thousands_of_digits_is_told_by_its_length():
    ((_, value, reason),) = told(CHECK.json_row, FLAT | {"area": -(10**5000)})

    assert (value, reason) == ("a number of about 5001 digits", "expected 8 to 500 m²")


def test_all_problems_of_a_row_are_named_at_once_in_the_contract_s_order():
    sent = {"balcony": "yes", "condition": "bad", "area": 9999, "rooms": 2.5}

    assert told(CHECK.json_row, sent) == [
        ("area", 9999, "expected 8 to 500 m²"),
        ("rooms", 2.5, "expected a whole number, 1 to 12"),
        ("heating", None, "required, expected one of gas, district, electric"),
        ("condition", "bad", "expected one of poor, fair, good"),
        ("balcony", "yes", "unknown field, expected only area, rooms, heating, condition"),
    ]


def test_target_is_an_unknown_field():
    (problem,) = problems_of(CHECK.text_row, FORM | {"rent": "800"})

    assert (problem.field, problem.value, problem.rule) == ("rent", "800", "unknown_field")


@pytest.mark.parametrize("sent", [[], None, 5, "x", True, [FLAT]])
def test_anything_but_an_object_is_one_problem(sent):
    ((field, _, reason),) = told(CHECK.json_row, sent)

    assert field == ""
    assert reason == "expected an object with the fields area, rooms, heating, condition"


def test_problems_of_a_list_name_their_place_in_it():
    rows = [FLAT, FLAT | {"rooms": 99}, 5, FLAT, {**FLAT, "area": None}]

    problems = problems_of(CHECK.json_rows, rows)

    assert [(each.row, each.field) for each in problems] == [(1, "rooms"), (2, ""), (4, "area")]
    assert CHECK.json_rows(rows[:1]) == [FLAT]


def test_endless_problems_are_counted_and_the_first_hundred_told():
    with pytest.raises(CheckError) as caught:
        CHECK.json_row(FLAT | {f"field {place}": place for place in range(5000)})

    assert (caught.value.total, len(caught.value.problems)) == (5000, 100)
    # under no name, since a client's own names are endless, and may hold what no log should
    assert caught.value.counts == {("", "unknown_field"): 5000}


def test_all_features_are_told_even_if_they_are_many():
    many = [AREA | {"name": f"area {place}"} for place in range(150)]
    contract = Contract.model_validate({"target": RENT, "features": [*many, ROOMS]})

    assert len(problems_of(Check(contract).json_row, {})) == 151


def test_what_is_told_of_a_value_is_short_and_can_be_written():
    long, half_a_pair = "x" * 10_000, "\ud800"
    sent = FLAT | {"heating": long, "condition": [long] * 1000, long: 1, half_a_pair: half_a_pair}

    for problem in problems_of(CHECK.json_row, sent):
        assert len(problem.field.encode()) <= 102
        assert len(problem.value.encode() if isinstance(problem.value, str) else "") <= 102
