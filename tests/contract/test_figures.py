"""Figures for people and git."""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.figures import read_figures, rounded, write_figures

finite = st.floats(-1e300, 1e300)
figures = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(value=finite)
def test_float_keeps_five_digits(value):
    assert rounded(value) == pytest.approx(value, rel=5.1e-5, abs=1e-300)
    assert len(Decimal(repr(rounded(value))).normalize().as_tuple().digits) <= 5


@given(value=figures)
def test_rounding_twice_changes_nothing_and_leaves_valid_json(value):
    once = rounded(value)

    assert rounded(once) == once
    assert json.loads(json.dumps(once, allow_nan=False)) == once


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.123456, 0.12346),
        (1234567.8, 1234600.0),
        (-1e-9 / 3, -3.3333e-10),
        (math.inf, None),
        (math.nan, None),
        (123456, 123456),  # a count is exact
        (True, True),
        ("0.123456", "0.123456"),
        ({"a": [0.123456, (math.nan, 2)]}, {"a": [0.12346, [None, 2]]}),
    ],
)
def test_rounding_looks_into_dicts_and_lists_and_touches_floats_alone(value, expected):
    assert rounded(value) == expected
    assert type(rounded(value)) is type(expected)


def test_what_was_given_is_written_exactly_and_first(tmp_path):
    path = tmp_path / "new" / "figures.json"

    write_figures(path, {"r2_score": 0.123456789}, given={"alpha": 0.123456789, "name": "größer"})

    assert path.read_text("utf-8") == (
        '{\n  "alpha": 0.123456789,\n  "name": "größer",\n  "r2_score": 0.12346\n}\n'
    )
    assert read_figures(path) == {"alpha": 0.123456789, "name": "größer", "r2_score": 0.12346}
