"""The contract as a pandera schema, and the values of a table that break it."""

from collections.abc import Callable

import pandas as pd
import pandera.pandas as pandera
from pandera.errors import SchemaErrors

from contract.features import Column, Contract, Feature

Holds = Callable[[pd.Series], pd.Series]  # whether each value keeps a rule

FAILURE_COLUMNS = ["line", "column", "value", "rule"]


def find_failures(table: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """List every value that breaks the contract, with columns line, column, value and rule.

    `table` holds text as `ingest` read it, a gap being a missing value, and its index is the
    line of each row. Empty if the table keeps the contract; failures come in the order of lines.
    """
    try:
        make_schema(contract).validate(table, lazy=True)
    except SchemaErrors as error:
        failures = error.failure_cases.rename(
            columns={"index": "line", "failure_case": "value", "check": "rule"}
        )
        # not_nullable is pandera's name; the other rules are in our own words already
        failures["rule"] = failures["rule"].replace("not_nullable", "may not be empty")
        return failures.sort_values(["line", "column"], ignore_index=True)[FAILURE_COLUMNS]
    return pd.DataFrame(columns=FAILURE_COLUMNS)


def make_schema(contract: Contract) -> pandera.DataFrameSchema:
    """Make the schema of a table of text, one column for each column of the contract."""
    return pandera.DataFrameSchema(
        {
            column.name: pandera.Column(
                checks=_checks(column), nullable=isinstance(column, Feature) and column.missing
            )
            for column in contract.columns
        }
    )


def to_typed(table: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """Turn a table of text that keeps the contract into numbers and categories as text."""
    typed = {}
    for column in contract.columns:
        values = table[column.name]
        if _is_number(column):
            values = _to_numbers(values)
            whole = column.dtype == "int" and not values.hasnans
            values = values.astype("int64") if whole else values.astype("float64")
        typed[column.name] = values
    return pd.DataFrame(typed, index=table.index)


def to_readable(table: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """Keep the rows whose numbers can be read, whatever else is wrong with them.

    Numbers become float64, also those out of range; categories stay text, also unknown ones.
    """
    names = [column.name for column in contract.columns if _is_number(column)]
    numbers = {name: _to_numbers(table[name]) for name in names}
    readable = pd.Series(True, index=table.index)
    for name, values in numbers.items():
        readable &= _is_finite(values) | table[name].isna()
    return table.assign(**numbers)[readable]


def _is_number(column: Column) -> bool:
    return not isinstance(column, Feature) or column.kind == "numeric"


def _to_numbers(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").astype("float64")


def _checks(column: Column) -> list[pandera.Check]:
    """Make the rules of a column, so that a value breaks one of them at the most."""
    if not _is_number(column):
        return [_check(lambda values: values.isin(column.categories), column.domain)]
    rules = [("a number", _is_finite)]
    if column.dtype == "int":
        rules.append(("a whole number", lambda numbers: numbers % 1 == 0))
    if column.range is not None:
        rules.append((column.domain, lambda numbers: numbers.between(*column.range)))
    return [
        _check(_holds_after([holds for _, holds in rules[:place]], holds), name)
        for place, (name, holds) in enumerate(rules)
    ]


def _holds_after(earlier: list[Holds], holds: Holds) -> Holds:
    """Turn a rule on numbers into one on text, which what breaks an earlier rule passes."""

    def on_text(values: pd.Series) -> pd.Series:
        numbers = _to_numbers(values)
        passes = holds(numbers)
        for comes_first in earlier:
            passes |= ~comes_first(numbers)
        return passes

    return on_text


def _is_finite(numbers: pd.Series) -> pd.Series:
    return numbers.abs() < float("inf")


def _check(holds: Holds, rule: str) -> pandera.Check:
    return pandera.Check(holds, name=rule, error=rule, ignore_na=True)
