"""Test rows are held back, and named by a hash."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.figures import read_figures
from contract.rows import read_rows, rows_sha256, write_rows
from stages import split
from stages.start import StageError
from tests.example import make_rows, write_params


@given(n_rows=st.integers(1, 60), test_size=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_each_row_lands_in_exactly_one_split_in_the_order_of_the_file(n_rows, test_size, seed):
    rows = pd.DataFrame({"place": range(n_rows)})

    train, test = split.split(rows, test_size, seed)

    assert len(test) == round(test_size * n_rows)
    assert sorted([*train["place"], *test["place"]]) == list(range(n_rows))
    assert train["place"].is_monotonic_increasing
    assert test["place"].is_monotonic_increasing


def test_split_follows_the_seed():
    rows = make_rows(100)

    first, again, other = (split.split(rows, 0.2, seed)[1] for seed in (1, 1, 2))

    assert first.equals(again)
    assert not first.equals(other)


def test_train_and_test_rows_are_written_with_the_hash_of_the_test_rows(parted):
    train, test = read_rows(split.TRAIN_ROWS), read_rows(split.TEST_ROWS)

    assert read_figures(split.METRICS) == {"n_train_rows": 160, "n_test_rows": 40}
    assert sorted([*train.index, *test.index]) == list(make_rows(200).index)
    assert split.TEST_ROWS_SHA256.read_text() == rows_sha256(test) + "\n"


@pytest.mark.parametrize(
    ("n_rows", "n_folds", "message"),
    [
        (2, 3, "2 rows give 2 to train and 0 to test, expected 6 and 2 or more"),
        (7, 3, "7 rows give 6 to train and 1 to test, expected 6 and 2 or more"),
        (12, 5, "12 rows give 10 to train and 2 to test, expected 10 and 2 or more"),
        (12, 6, "12 rows give 10 to train and 2 to test, expected 12 and 2 or more"),
    ],
)
def test_too_few_rows_for_the_folds_are_refused_and_nothing_is_written(
    n_rows, n_folds, message, project
):
    write_params({"tune.n_folds": n_folds})
    write_rows(make_rows(n_rows), split.VALID_ROWS)

    if (n_rows, n_folds) == (12, 5):  # just enough
        split.main()
        assert read_figures(split.METRICS) == {"n_train_rows": 10, "n_test_rows": 2}
        return
    with pytest.raises(StageError, match=f"^{message} for tune.n_folds {n_folds}"):
        split.main()
    assert not split.TEST_ROWS.exists()
    assert not split.METRICS.exists()
