"""Bars of two spreads: all values are in them, however they lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.features import Contract
from contract.profiler import axes_of, make_profile
from serve.histogram import bars_of
from tests.example import CONTRACT


@given(
    values=st.lists(st.floats(8, 500) | st.none(), min_size=1, max_size=50),
    before=st.lists(st.floats(-1e9, 1e9), max_size=50),
)
def test_bars_of_any_numbers_hold_all_values_and_ascend(values, before):
    axis = {"area": axes_of(CONTRACT)["area"]}
    then, now = (make_profile({"area": each}, axis).columns["area"] for each in (before, values))

    bars = bars_of(then, now)

    if not now.n_values:
        assert bars == []
        return
    assert sum(bar.now for bar in bars) == pytest.approx(1)
    assert sum(bar.then for bar in bars) == pytest.approx(1 if before else 0)
    assert all(bar.low < bar.high for bar in bars)
    assert len(bars) <= 26


def test_bars_of_many_categories_tell_the_rest_together():
    names = [f"c{n:02}" for n in range(20)]
    feature = {"name": "kind", "kind": "nominal", "categories": names}
    axes = axes_of(Contract.model_validate({"target": {"name": "y"}, "features": [feature]}))
    axis = {"kind": axes["kind"]}
    then = make_profile({"kind": names + ["c03"] * 20}, axis).columns["kind"]
    now = make_profile({"kind": names + ["new"] * 20}, axis).columns["kind"]

    bars = bars_of(then, now)

    assert [bar.label for bar in bars][-2:] == ["12 others", "not known: new"]
    assert "c03" in {bar.label for bar in bars}
    assert sum(bar.now for bar in bars) == pytest.approx(1)
