"""Hold back test rows that no stage but `evaluate` opens."""

from pathlib import Path

import numpy as np
import pandas as pd

from contract.figures import write_figures
from contract.params import load_params
from contract.rows import read_rows, rows_sha256, write_rows
from stages.start import StageError, start

VALID_ROWS = Path("data/interim/valid.parquet")
TRAIN_ROWS = Path("data/split/train.parquet")
TEST_ROWS = Path("data/split/test.parquet")
TEST_ROWS_SHA256 = Path("data/split/test_rows.sha256")  # names the rows of a measurement
METRICS = Path("metrics/split.json")
ROWS_PER_FOLD = 2  # the least on which a score such as r2 is defined


def split(rows: pd.DataFrame, test_size: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw train and test rows, each in the order of the file; every row is in one of them."""
    n_test = round(len(rows) * test_size)
    drawn = np.random.default_rng(seed).permutation(len(rows))
    return rows.iloc[np.sort(drawn[n_test:])], rows.iloc[np.sort(drawn[:n_test])]


def expect_enough(train: pd.DataFrame, test: pd.DataFrame, n_folds: int) -> None:
    needed = ROWS_PER_FOLD * n_folds
    if len(train) < needed or len(test) < ROWS_PER_FOLD:
        raise StageError(
            f"{len(train) + len(test)} rows give {len(train)} to train and {len(test)} to test, "
            f"expected {needed} and {ROWS_PER_FOLD} or more for tune.n_folds {n_folds}. "
            "Bring more rows, or change split.test_size or tune.n_folds in params.yaml."
        )


def main() -> None:
    params = load_params()
    rows = read_rows(VALID_ROWS)

    train, test = split(rows, params.split.test_size, params.seed)

    expect_enough(train, test, params.tune.n_folds)
    write_rows(train, TRAIN_ROWS)
    write_rows(test, TEST_ROWS)
    TEST_ROWS_SHA256.write_text(rows_sha256(test) + "\n", "utf-8")
    write_figures(METRICS, {"n_train_rows": len(train), "n_test_rows": len(test)})


if __name__ == "__main__":
    start(main)
