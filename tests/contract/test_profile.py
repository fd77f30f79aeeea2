"""Profiles: what they count, in whatever chunks, and what is refused as no profile."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import ContractError
from contract.features import Contract, Feature, Target
from contract.profile import Profile, not_compared, parse_profile, read_reference
from contract.profiler import Profiler, axes_of, axis_of, make_profile
from tests.contract.strategies import contracts, rows_of
from tests.example import CONTRACT, PLAIN, WITH_GAPS, make_rows

GAPPY = Contract.model_validate(WITH_GAPS)


def profiled(rows, contract: Contract = CONTRACT) -> Profile:
    return make_profile(rows, axes_of(contract))


def test_figures_are_those_that_pandas_finds():
    rows = make_rows(500, contract=GAPPY)

    profile = profiled(rows, GAPPY)

    area, heating = profile.columns["area"], profile.columns["heating"]
    assert (profile.n_rows, area.n_gaps) == (500, rows["area"].isna().sum())
    assert area.mean == pytest.approx(rows["area"].mean(), rel=1e-4)
    assert area.std == pytest.approx(rows["area"].std(), rel=1e-4)
    assert (area.min, area.max) == (rows["area"].min(), rows["area"].max())
    shares = rows["heating"].value_counts(normalize=True).to_dict()
    assert heating.shares == pytest.approx(shares)
    pair = next(pair for pair in profile.pairs if pair.name == "area - rooms")
    both = rows[["area", "rooms"]].dropna()
    assert pair.n_rows == len(both)
    assert pair.correlation == pytest.approx(both.corr().iloc[0, 1], rel=1e-4)
    assert pair.mean == pytest.approx((both["area"] - both["rooms"]).mean(), rel=1e-4)
    assert pair.std == pytest.approx((both["area"] - both["rooms"]).std(), rel=1e-4)


def test_quantiles_are_off_by_a_bin_at_the_most():
    rows = make_rows(2000)

    area = profiled(rows).columns["area"]

    width = max(np.diff(area.axis.edges))
    for share, value in area.quantiles.items():
        assert value == pytest.approx(rows["area"].quantile(float(share)), abs=width)


@given(cuts=st.lists(st.integers(0, 300), max_size=5))
def test_chunks_give_the_profile_of_all_rows(cuts):
    rows = make_rows(300, contract=GAPPY)
    profiler = Profiler(axes_of(GAPPY))

    for part in np.split(np.arange(300), sorted(cuts)):
        profiler.add(rows.iloc[part])

    assert profiler.profile().to_json() == profiled(rows, GAPPY).to_json()


@given(data=st.data())
def test_every_row_of_every_contract_is_counted_and_the_json_reads_back(data):
    contract = data.draw(contracts())
    rows = data.draw(st.lists(rows_of(contract), max_size=5))
    columns = {c.name: [row[c.name] for row in rows] for c in contract.columns}

    profile = profiled(columns, contract)

    for name, column in profile.columns.items():
        assert column.n_values + column.n_gaps == len(rows)
        outside = column.counts[-1] + (column.counts[0] if column.kind == "numeric" else 0)
        assert outside == 0, name
    text = profile.to_json()
    json.loads(text, parse_constant=pytest.fail)
    assert parse_profile(text, "here", "mend") == profile


def test_large_means_keep_the_digits_that_count_beside_their_spread():
    contract = Contract(
        target=Target(name="y"), features=[Feature(name="t", kind="numeric", range=(0, 2e9))]
    )
    t = 1.7e9 + np.arange(1000) / 10

    column = profiled({"t": t, "y": t}, contract).columns["t"]

    assert column.mean == pytest.approx(t.mean(), abs=1e-3)
    assert column.std == pytest.approx(t.std(ddof=1), rel=1e-4)


def test_values_come_as_arrow_lists_or_series():
    rows = make_rows(50, contract=GAPPY)
    lists = {name: [None if pd.isna(v) else v for v in rows[name]] for name in rows}
    arrow = {name: pa.chunked_array([pa.array(values)]) for name, values in lists.items()}

    assert profiled(rows, GAPPY) == profiled(lists, GAPPY) == profiled(arrow, GAPPY)


def test_values_outside_the_contract_are_counted_apart_and_named():
    rows = make_rows(60)
    rows.loc[2:4, "heating"] = ["coal", "wood", "coal"]
    rows["area"] = rows["area"].mask(rows.index == 5, 1e4).mask(rows.index == 6, math.inf)

    profile = profiled(rows)

    heating, area = profile.columns["heating"], profile.columns["area"]
    assert (heating.counts[-1], heating.unseen) == (3, ("coal", "wood"))
    assert (area.counts[-1], area.n_gaps, area.max) == (1, 1, 1e4)


@pytest.mark.parametrize(
    ("column", "inside"),
    [
        (Target(name="y", dtype="int", range=(0, 100)), [0, 100]),
        (Target(name="y", dtype="int", range=(0.2, 0.8)), []),
        (Target(name="y", dtype="int", range=(-3, 1e6)), [-3, 0, 1e6]),
        (Target(name="y", range=(0.1, 0.3)), [0.1, 0.2, 0.3]),
        (Target(name="y"), [-1e9, 0, 1e9]),
    ],
)
def test_edges_ascend_and_hold_the_range_with_both_ends(column, inside):
    axis = axis_of(column)

    assert list(axis.edges) == sorted(set(axis.edges))
    for value in inside:
        counts = make_profile({"y": [value]}, {"y": axis}).columns["y"].counts
        assert (counts[0], counts[-1]) == (0, 0)


def test_no_rows_and_columns_without_a_value_have_no_figures():
    for rows in (make_rows(0), make_rows(3).assign(area=np.nan)):
        area = profiled(rows).columns["area"]
        assert (area.n_values, area.mean, area.quantiles) == (0, None, {})
        assert parse_profile(profiled(rows).to_json(), "", "") == profiled(rows)


def test_columns_that_one_side_lacks_or_has_as_another_kind_are_told():
    features = [*PLAIN["features"][1:], {"name": "floor", "kind": "numeric", "range": [0, 40]}]
    features[2] = features[2] | {"kind": "nominal"}
    other = Contract.model_validate(PLAIN | {"features": features})

    assert not_compared(axes_of(CONTRACT), axes_of(other)) == [
        "The reference has area, the contract has not.",
        "The reference was made without floor.",
        "The reference holds as another kind: condition (ordinal, now nominal).",
    ]


def test_axes_of_the_reference_serve_where_it_has_the_column():
    reference = profiled(make_rows(50))
    wider = PLAIN["features"][0] | {"range": [0, 9000]}
    contract = Contract.model_validate(PLAIN | {"features": [wider, *PLAIN["features"][1:]]})

    axes = axes_of(contract, reference)

    assert axes["area"] == reference.axes["area"] != axes_of(contract)["area"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text[:-20], "its text"),
        (lambda text: text.replace('"n_rows": 50', '"n_rows": 51', 1), "does not have n_rows"),
        (lambda text: text.replace('"kind": "ordinal"', '"kind": "nominl"'), "axis.kind"),
        (lambda text: text.replace('"counts": [', '"counts": [1, '), "do not add up"),
        (lambda text: "[]", "its text"),
        (lambda text: text.replace('"b": "rooms"', '"b": "cellar"'), "that are not there"),
    ],
)
def test_damaged_reference_is_refused_with_what_is_wrong_and_three_ways_on(change, told, tmp_path):
    path = tmp_path / "reference.json"
    text = profiled(make_rows(50)).to_json()
    path.write_text(change(text))
    assert path.read_text() != text

    with pytest.raises(ContractError) as error:
        read_reference(path)

    assert str(error.value).startswith(f"{path} is not a whole profile: ")
    assert told in str(error.value)
    assert "Take it back from git, write it anew with" in str(error.value)


def test_no_reference_is_an_empty_object_and_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "reference.json"
    path.write_text("{}\n")
    assert read_reference(path) is None

    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ContractError, match="is not text"):
        read_reference(path)
