"""Checked rows on disk: one parquet column for each column of the contract."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from contract.encoding import encode
from contract.features import Contract


def read_rows(path: Path) -> pd.DataFrame:
    """Read rows of typed values; the index `line` is a row's line in the user's file."""
    with path.open("rb") as file:  # whose error says in words that there is no such file
        return pd.read_parquet(file)


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path)


def to_arrays(rows: pd.DataFrame, contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    """Give X, shape (n_rows, n_features), and y, shape (n_rows,), both float64.

    X holds the float32 values of `encode`: estimators compute in double precision on exactly
    the numbers that the exported model will see.
    """
    X = encode(rows, contract).astype(np.float64)
    return X, rows[contract.target.name].to_numpy(np.float64)


def sample_rows(rows: pd.DataFrame, max_rows: int | None, seed: int) -> pd.DataFrame:
    """Draw the rows that a search looks at, in their order; all of them if there are few."""
    if max_rows is None or len(rows) <= max_rows:
        return rows
    drawn = np.random.default_rng(seed).choice(len(rows), max_rows, replace=False)
    return rows.iloc[np.sort(drawn)]


def rows_sha256(rows: pd.DataFrame) -> str:
    """Hash the values of rows, whatever library version wrote their file."""
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()
