"""Typed rows on disk, as arrays, drawn, and named by a hash."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.features import Contract
from contract.rows import read_rows, rows_sha256, sample_rows, to_arrays, write_rows
from tests.example import CONTRACT, WITH_GAPS, make_rows

GAPPY = Contract.model_validate(WITH_GAPS)


@pytest.mark.parametrize("contract", [CONTRACT, GAPPY], ids=["plain", "gaps"])
def test_rows_come_back_from_disk_as_they_were(contract, tmp_path):
    rows = make_rows(50, contract=contract)
    path = tmp_path / "new" / "rows.parquet"

    write_rows(rows, path)

    pd.testing.assert_frame_equal(read_rows(path), rows, check_index_type=False)
    assert read_rows(path).index.name == "line"


def test_same_rows_give_the_same_bytes(tmp_path):
    for name in ("first", "again"):
        write_rows(make_rows(50), tmp_path / name)

    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()


def test_estimators_see_exactly_the_numbers_of_the_exported_model():
    rows = make_rows(50)

    X, y = to_arrays(rows, CONTRACT)

    assert (X.dtype, y.dtype, X.shape) == (np.float64, np.float64, (50, 4))
    np.testing.assert_array_equal(X, X.astype(np.float32))
    np.testing.assert_array_equal(y, rows["rent"])


@given(n_rows=st.integers(1, 40), max_rows=st.integers(1, 50), seed=st.integers(0, 5))
def test_sample_holds_as_many_rows_as_allowed_each_once_in_their_order(n_rows, max_rows, seed):
    rows = pd.DataFrame({"place": range(n_rows)})

    places = sample_rows(rows, max_rows, seed)["place"].tolist()

    assert len(places) == min(n_rows, max_rows)
    assert places == sorted(set(places))


def test_sample_follows_the_seed_and_takes_all_rows_without_a_limit():
    rows = make_rows(100)

    assert sample_rows(rows, 20, seed=1).equals(sample_rows(rows, 20, seed=1))
    assert not sample_rows(rows, 20, seed=1).equals(sample_rows(rows, 20, seed=2))
    assert sample_rows(rows, None, seed=1) is rows


def test_hash_names_the_values_and_their_order_but_not_their_lines():
    rows = make_rows(20)
    other = rows.copy()
    other.iloc[7, 0] += 0.1

    assert rows_sha256(rows.reset_index(drop=True)) == rows_sha256(rows)
    assert rows_sha256(other) != rows_sha256(rows)
    assert rows_sha256(rows[::-1]) != rows_sha256(rows)
