"""The contract held against a table of text: every broken value is told, and nothing else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.features import Contract
from contract.params import load_params
from contract.schema import FAILURE_COLUMNS, find_failures, to_typed
from tests.contract.strategies import broken_cells_of, contracts, rows_of
from tests.example import CONTRACT, ROOT, WITH_GAPS, as_text, make_rows

GAPPY = Contract.model_validate(WITH_GAPS)
SHIPPED = load_params(ROOT / "params.yaml").contract


def table_of(rows: list[dict], contract: Contract) -> pd.DataFrame:
    """Write rows as `ingest` does: cells of text, from line 2 on."""
    lines = pd.RangeIndex(2, len(rows) + 2, name="line")
    names = [column.name for column in contract.columns]
    return as_text(pd.DataFrame(rows, index=lines, columns=names, dtype=object))


def with_cells(cells: dict[tuple[int, str], str | None], contract=CONTRACT) -> pd.DataFrame:
    table = as_text(make_rows(8, contract=contract))
    for (line, column), cell in cells.items():
        table.loc[line, column] = cell
    return table


def told(table: pd.DataFrame, contract: Contract = CONTRACT) -> list[tuple]:
    failures = find_failures(table, contract)
    assert list(failures.columns) == FAILURE_COLUMNS
    return [tuple(row) for row in failures.astype(object).fillna("").itertuples(index=False)]


@given(data=st.data())
def test_every_row_of_any_contract_is_accepted_and_keeps_its_values(data):
    contract = data.draw(contracts() | st.sampled_from([CONTRACT, GAPPY, SHIPPED]))
    rows = data.draw(st.lists(rows_of(contract), min_size=1, max_size=5))
    table = table_of(rows, contract)

    assert told(table, contract) == []
    typed = to_typed(table, contract)
    kept = typed.astype(object).where(typed.notna(), None).to_dict("records")
    assert kept == rows


@given(data=st.data())
def test_one_broken_value_is_told_once_with_its_line_column_value_and_rule(data):
    contract = data.draw(contracts() | st.sampled_from([CONTRACT, GAPPY, SHIPPED]))
    rows = data.draw(st.lists(rows_of(contract), min_size=1, max_size=4))
    column = data.draw(st.sampled_from(contract.columns))
    cell, rule = data.draw(broken_cells_of(column))
    place = data.draw(st.integers(0, len(rows) - 1))
    table = table_of(rows, contract)
    table.loc[place + 2, column.name] = cell

    assert told(table, contract) == [(place + 2, column.name, cell or "", rule)]


def test_all_failures_are_told_at_once_in_the_order_of_lines():
    table = with_cells(
        {
            (9, "area"): "1000",
            (3, "heating"): "coal",
            (3, "area"): "large",
            (4, "rooms"): "2.5",
            (5, "condition"): None,
            (6, "rent"): "-1",
        }
    )

    assert told(table) == [
        (3, "area", "large", "a number"),
        (3, "heating", "coal", "one of gas, district, electric"),
        (4, "rooms", "2.5", "a whole number"),
        (5, "condition", "", "may not be empty"),
        (6, "rent", "-1", "0 to 20000 EUR/month"),
        (9, "area", "1000", "8 to 500 m²"),
    ]


@pytest.mark.parametrize(
    ("column", "cell", "rule"),
    [
        ("rooms", "99.5", "a whole number"),  # and out of range
        ("rooms", "inf", "a number"),  # and out of range
        ("area", "nan", "a number"),
        ("area", "-inf", "a number"),
        ("area", "True", "a number"),
        ("heating", "Gas", "one of gas, district, electric"),
        ("heating", "0", "one of gas, district, electric"),
    ],
)
def test_a_value_that_is_wrong_in_two_ways_breaks_the_first_rule_only(column, cell, rule):
    assert told(with_cells({(4, column): cell})) == [(4, column, cell, rule)]


def test_both_ends_of_a_range_are_allowed():
    ends = {(2, "area"): "8", (3, "area"): "500.0", (4, "rooms"): "1", (5, "rooms"): "12"}

    assert told(with_cells(ends)) == []


def test_gap_is_allowed_where_the_contract_says_so_and_never_in_the_target():
    gaps = {(4, name): None for name in [*GAPPY.names(), "rent"]}

    assert told(with_cells(gaps, GAPPY), GAPPY) == [(4, "rent", "", "may not be empty")]


def test_whole_numbers_become_integers_unless_one_is_missing():
    complete, gappy = as_text(make_rows(40)), as_text(make_rows(40, contract=GAPPY))

    assert to_typed(complete, CONTRACT)["rooms"].dtype == np.int64
    assert to_typed(gappy, GAPPY)["rooms"].dtype == np.float64
    pd.testing.assert_frame_equal(to_typed(complete, CONTRACT), make_rows(40))
    pd.testing.assert_frame_equal(to_typed(gappy, GAPPY), make_rows(40, contract=GAPPY))


@pytest.mark.parametrize("cell", ["7.0", "7", "+7", "7e0", "007"])
def test_whole_number_may_be_written_in_any_way_of_numbers(cell):
    table = with_cells({(4, "rooms"): cell})

    assert told(table) == []
    assert to_typed(table, CONTRACT).loc[4, "rooms"] == 7
