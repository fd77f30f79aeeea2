"""Checked values to the numbers that every model takes in."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.encoding import encode, row_encoder
from contract.errors import ContractError
from contract.features import Contract
from tests.contract.strategies import contracts, rows_of
from tests.example import CONTRACT, WITH_GAPS

GAPPY = Contract.model_validate(WITH_GAPS)


def columns_of(rows: list[dict], contract: Contract) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in contract.names()}


def number(value, feature) -> float:
    """Say what one value becomes, in the plainest way."""
    if value is None:
        return math.nan
    return float(np.float32(feature.categories.index(value) if feature.categories else value))


@given(data=st.data())
def test_each_value_becomes_itself_its_place_or_nan(data):
    contract = data.draw(contracts())
    rows = data.draw(st.lists(rows_of(contract), min_size=1, max_size=5))

    X = encode(columns_of(rows, contract), contract)

    expected = [
        [number(row[feature.name], feature) for feature in contract.features] for row in rows
    ]
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, np.array(expected, dtype=np.float32))


@given(rows=st.lists(rows_of(GAPPY), min_size=1, max_size=8))
def test_lists_of_the_server_and_a_table_of_training_give_the_same_numbers(rows):
    X = encode(columns_of(rows, GAPPY), GAPPY)

    np.testing.assert_array_equal(encode(pd.DataFrame(rows), GAPPY), X)


@given(rows=st.lists(rows_of(GAPPY), min_size=2, max_size=8), data=st.data())
def test_a_row_is_encoded_apart_from_its_neighbours(rows, data):
    place = data.draw(st.integers(0, len(rows) - 1))

    alone = encode(columns_of([rows[place]], GAPPY), GAPPY)

    np.testing.assert_array_equal(alone[0], encode(columns_of(rows, GAPPY), GAPPY)[place])


def test_columns_stand_in_the_order_of_the_contract_whatever_the_order_of_the_table():
    columns = {"heating": ["gas"], "rent": [1], "condition": ["good"], "rooms": [3], "area": [80]}

    assert encode(columns, CONTRACT).tolist() == [[80, 3, 0, 2]]


def test_unknown_category_is_refused_with_what_was_expected():
    columns = {"heating": ["gas", "coal"], "condition": ["good"] * 2, "rooms": [3] * 2}

    with pytest.raises(
        ContractError, match=r"^heating is 'coal', expected one of gas, district, electric\.$"
    ):
        encode(columns | {"area": [80.0, 90.0]}, CONTRACT)


def test_unknown_category_is_refused_beside_a_gap():
    columns = {name: [None, None] for name in GAPPY.names()}

    assert np.isnan(encode(columns, GAPPY)).all()
    with pytest.raises(ContractError, match="condition is 'bad'"):
        encode(columns | {"condition": [None, "bad"]}, GAPPY)


def test_no_rows_give_a_matrix_without_rows():
    assert encode({name: [] for name in CONTRACT.names()}, CONTRACT).shape == (0, 4)


@given(data=st.data())
def test_a_row_alone_is_encoded_as_in_a_table(data):
    contract = data.draw(contracts())
    row = data.draw(rows_of(contract))

    X = row_encoder(contract)(row)

    assert (X.shape, X.dtype) == ((1, len(contract.features)), np.float32)
    np.testing.assert_array_equal(X, encode(columns_of([row], contract), contract))
