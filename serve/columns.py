"""Whole columns of a file against the contract, to the same verdict as `Check` cell by cell."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.features import Feature
from serve.check import BLANKS, Check, bounds
from serve.errors import CheckError, Problem

PLAIN = r"^-?[0-9]{1,30}(\.[0-9]{1,30})?$"  # as most files write numbers; none is infinite


@dataclass(frozen=True)
class CheckedColumn:
    """One feature's cells as numbers, and what is wrong with some, by place."""

    values: np.ndarray  # float64: a number, a category's place, NaN for a gap; 0 where wrong
    problems: dict[int, Problem]


def check_column(cells: pa.StringArray, feature: Feature, check: Check) -> CheckedColumn:
    """Accept the ordinary cells at once, and let the row check judge each other text once."""
    if feature.categories:
        accepted = pc.index_in(cells, value_set=pa.array(feature.categories, pa.string()))
    else:
        accepted = _within(feature, _numbers(cells))
    values = accepted.cast(pa.float64()).fill_null(0.0).to_numpy().copy()
    if not accepted.null_count:
        return CheckedColumn(values, {})
    places = np.flatnonzero(accepted.is_null())
    texts = cells.take(pa.array(places)).dictionary_encode()
    verdicts = [_judge(cell, feature, check) for cell in texts.dictionary.to_pylist()]
    problems = {}
    for place, which in zip(places.tolist(), texts.indices.to_pylist(), strict=True):
        verdict = verdicts[which]
        if isinstance(verdict, Problem):
            problems[place] = verdict
        else:
            values[place] = verdict
    return CheckedColumn(values, problems)


def _numbers(cells: pa.StringArray) -> pa.DoubleArray:
    """Read numbers, null where a cell may be none."""
    try:
        return cells.cast(pa.float64())
    except pa.ArrowInvalid:  # at the first cell that is no number
        cells = pc.utf8_trim(cells, BLANKS)
        is_plain = pc.match_substring_regex(cells, PLAIN)
        return pc.if_else(is_plain, cells, pa.scalar(None, pa.string())).cast(pa.float64())


def _within(feature: Feature, numbers: pa.DoubleArray) -> pa.DoubleArray:
    """Make null what is out of range, no number, or not whole where it has to be."""
    low, high = bounds(feature)
    keeps = pc.and_(pc.greater_equal(numbers, low), pc.less_equal(numbers, high))
    if feature.dtype == "int":
        keeps = pc.and_(keeps, pc.equal(numbers, pc.floor(numbers)))
    if pc.all(keeps, skip_nulls=False).as_py():
        return numbers
    return pc.if_else(keeps, numbers, pa.scalar(None, pa.float64()))


def _judge(cell: str, feature: Feature, check: Check) -> float | Problem:
    try:
        return _as_number(check.text_cell(feature.name, cell), feature)
    except CheckError as error:
        return error.problems[0]


def _as_number(value: Any, feature: Feature) -> float:
    if value is None:
        return math.nan
    return float(feature.categories.index(value) if feature.categories else value)
