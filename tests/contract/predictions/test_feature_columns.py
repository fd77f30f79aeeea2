"""Typed columns of features: no value is lost that fits the type, none breaks the others."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.features import Contract
from contract.predictions import feature_columns
from contract.predictions.feature_columns import feature_types, with_feature_columns
from contract.predictions.read import SCHEMA
from tests.example import AREA, CONDITION, CONTRACT, HEATING, RENT, ROOMS

TYPES = {
    "area": pa.float64(),
    "rooms": pa.int64(),
    "heating": pa.string(),
    "condition": pa.string(),
}


def contract(*features: dict) -> Contract:
    return Contract.model_validate({"target": RENT, "features": features})


def batch_of(*texts: str) -> pa.RecordBatch:
    rows = [{"id": f"row {i}", "features": text} for i, text in enumerate(texts)]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def parsed(texts: list[str], types: dict[str, pa.DataType] | None = None) -> dict[str, list]:
    types = TYPES if types is None else types
    batch = with_feature_columns(batch_of(*texts), types)
    return {name: batch[name].to_pylist() for name in types}


def test_types_follow_the_contract_in_its_order():
    assert feature_types([CONTRACT]) == TYPES
    assert list(feature_types([CONTRACT])) == CONTRACT.names()


def test_features_of_all_contracts_have_a_column_the_newest_first():
    older, newer = contract(AREA, HEATING), contract(CONDITION, AREA)

    assert list(feature_types([older, newer])) == ["condition", "area", "heating"]


@pytest.mark.parametrize(
    ("older", "newer", "kind"),
    [
        (ROOMS, ROOMS | {"dtype": "float"}, pa.float64()),
        (ROOMS | {"dtype": "float"}, ROOMS, pa.float64()),
        (ROOMS, HEATING | {"name": "rooms"}, pa.string()),
        (HEATING | {"name": "rooms"}, ROOMS, pa.string()),
    ],
)
def test_feature_of_two_types_has_one_that_holds_both(older, newer, kind):
    assert feature_types([contract(older), contract(newer)]) == {"rooms": kind}


def test_columns_take_the_place_of_the_objects():
    row = {"area": 72.5, "rooms": 3, "heating": "gas", "condition": "fair"}

    batch = with_feature_columns(batch_of(json.dumps(row)), TYPES)

    assert batch.schema.names == [n for n in SCHEMA.names if n != "features"] + list(TYPES)
    assert [batch.schema.field(name).type for name in TYPES] == list(TYPES.values())
    assert {name: batch[name].to_pylist() for name in TYPES} == {k: [v] for k, v in row.items()}


def test_what_a_row_does_not_have_is_null():
    found = parsed(['{"area": 1.5, "garden": true}', "{}", '{"heating": null}', '{"rooms": 2}'])

    assert found == {
        "area": [1.5, None, None, None],
        "rooms": [None, None, None, 2],
        "heating": [None] * 4,
        "condition": [None] * 4,
    }


def test_value_of_another_type_is_null_and_costs_the_others_nothing():
    found = parsed(
        [
            '{"area": "hash:0123", "rooms": 2, "heating": "hash:4567"}',
            '{"area": 30, "rooms": 2.5, "heating": "gas"}',
            '{"area": true, "rooms": 9223372036854775808, "heating": ["gas"]}',
            '{"area": {}, "rooms": 3.0, "heating": false}',
            "not JSON",
            "[1]",
            "",
        ]
    )

    assert found["area"] == [None, 30.0, None, None, None, None, None]
    assert found["rooms"] == [2, None, None, 3, None, None, None]
    assert found["heating"] == ["hash:4567", "gas", None, None, None, None, None]


def test_text_column_holds_numbers_as_json_writes_them():
    found = parsed(['{"rooms": 3}', '{"rooms": 2.5}', '{"rooms": "many"}'], {"rooms": pa.string()})

    assert found == {"rooms": ["3", "2.5", "many"]}


def test_feature_named_like_a_base_column_is_told_apart():
    types = {"time": pa.string(), "truth": pa.float64(), "feature_time": pa.string()}

    batch = with_feature_columns(
        batch_of('{"time": "noon", "truth": 1, "feature_time": "midnight"}'), types
    )

    assert batch.schema.names[-3:] == ["feature_time", "feature_truth", "feature_time_2"]
    assert [column.to_pylist() for column in batch.columns[-3:]] == [["noon"], [1.0], ["midnight"]]
    assert batch["time"].to_pylist() == [None]


@pytest.mark.parametrize("types", [TYPES, {}])
def test_no_rows_have_the_same_columns(types):
    batch = with_feature_columns(batch_of(), types)

    assert batch.num_rows == 0
    assert batch.schema.names[-len(types) :] == list(types) if types else True


def test_long_and_strange_text_stays_as_it_is():
    texts = ["x" * 3_000_000, 'a "b" \\ \n \t Ö 😀', "\u2028", ""]

    assert parsed([json.dumps({"heating": text}) for text in texts])["heating"] == texts


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.just([1]),
)
rows = st.dictionaries(st.sampled_from([*TYPES, "garden"]), values)


@given(st.lists(rows, max_size=20))
def test_rows_at_once_give_what_they_give_one_by_one(rows):
    texts = [json.dumps(row) for row in rows]
    one_by_one = feature_columns._parse_one_by_one(pa.array(texts, pa.string()), TYPES)

    assert list(parsed(texts).values()) == [column.to_pylist() for column in one_by_one]


well_typed = st.fixed_dictionaries(
    {},
    optional={
        "area": st.none() | st.floats(-1e300, 1e300) | st.integers(-(2**53), 2**53),
        "rooms": st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
        "heating": st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
        "garden": values,
    },
)


@given(st.lists(well_typed, min_size=1, max_size=20))
def test_rows_of_the_expected_types_come_back_as_they_are(rows):
    found = parsed([json.dumps(row) for row in rows])

    for name in TYPES:
        assert found[name] == [row.get(name) for row in rows]
