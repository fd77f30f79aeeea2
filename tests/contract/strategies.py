"""Hypothesis strategies made from a contract: rows that keep it, and values that break it."""

import math
from typing import Any

from hypothesis import strategies as st

from contract.features import Column, Contract, Feature, Target

NO_NUMBERS = ["abc", "1,5", "--1", "1_000", "0x10", "1 000", "inf", "-Infinity", "1e400", "٣", "1-"]
names = st.text("abc/é _-.$", min_size=1, max_size=6).filter(lambda name: name.strip() == name)


def rows_of(contract: Contract) -> st.SearchStrategy[dict[str, Any]]:
    """Draw rows that the contract allows: int, float, category as text, or None for a gap."""
    return st.fixed_dictionaries({column.name: values_of(column) for column in contract.columns})


def values_of(column: Column) -> st.SearchStrategy[Any]:
    if isinstance(column, Feature) and column.categories:
        values = st.sampled_from(column.categories)
    else:
        low, high = column.range or (-1e6, 1e6)
        if column.dtype == "int":
            values = st.integers(math.ceil(low), math.floor(high))
        else:
            values = st.floats(low, high)
    return st.none() | values if isinstance(column, Feature) and column.missing else values


def broken_cells_of(column: Column) -> st.SearchStrategy[tuple[str | None, str]]:
    """Draw a cell that breaks the contract, with the one rule that it breaks."""
    kinds = []
    if not (isinstance(column, Feature) and column.missing):
        kinds.append(st.just((None, "may not be empty")))
    if isinstance(column, Feature) and column.categories:
        unknown = st.text(min_size=1, max_size=8).filter(lambda text: text not in column.categories)
        kinds.append(st.tuples(unknown, st.just(column.domain)))
        return st.one_of(kinds)
    kinds.append(st.tuples(st.sampled_from(NO_NUMBERS), st.just("a number")))
    if column.dtype == "int":
        halves = st.integers(-1000, 1000).map(lambda whole: str(whole + 0.5))
        kinds.append(st.tuples(halves, st.just("a whole number")))
    if column.range is not None:
        low, high = column.range
        beyond = st.integers(1, 10**6).flatmap(
            lambda step: st.sampled_from([math.floor(low) - step, math.ceil(high) + step])
        )
        kinds.append(st.tuples(beyond.map(str), st.just(column.domain)))
    return st.one_of(kinds)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Draw any contract of one to four features."""
    unused = draw(st.lists(names, min_size=10, max_size=10, unique=True))
    features = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["numeric", "nominal", "ordinal"]))
        domain = draw(ranges()) if kind == "numeric" else {"categories": draw(categories)}
        missing = draw(st.booleans())
        former = [unused.pop()] if draw(st.booleans()) else []
        features.append(
            Feature(name=unused.pop(), kind=kind, missing=missing, former_names=former, **domain)
        )
    numbers = draw(ranges() | st.just({}))
    return Contract(target=Target(name=unused.pop(), **numbers), features=features)


categories = st.lists(names, min_size=2, max_size=4, unique=True)


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.floats(-1e6, 1e6))
    width = draw(st.floats(1, 1e6))
    return {"dtype": draw(st.sampled_from(["int", "float"])), "range": (low, low + width)}
