"""Simulate a table of students and their exam scores, the sample that the example problem runs on.

`python -m ops.simulate --rows N` writes a CSV that behaves like the public "students performance"
table (itself fictional) without copying any of its rows: only the aggregate figures below come
from it. The groups are drawn independently. A score is the mean, plus one effect a group, plus
a residual that hangs together with those of the other scores.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

SAMPLE = Path("data/sample/students.csv")
N_ROWS = 1000
# Of the first 100,000 seeds, the one whose 1,000 rows come nearest to the public figures without
# sharing, even by chance, a single row with the public table.
SEED = 58815
LOWEST, HIGHEST = 0, 100


class Group(NamedTuple):
    """The share of rows in a group, and what the group adds to each score, in points."""

    share: float
    effects: tuple[float, float, float]


# Source of every figure here: the public table of 1,000 rows. Means are its means. Effects are the
# coefficients of one least-squares fit a score on the five columns, shifted so that the effects of
# a column, weighted by share, sum to 0. Deviations and correlations are those of the residuals.
SCORES = ("math_score", "reading_score", "writing_score")
MEANS = (66.09, 69.17, 68.05)
GROUPS = {
    "gender": {
        "female": Group(0.518, (-2.41, 3.41, 4.38)),
        "male": Group(0.482, (2.59, -3.66, -4.71)),
    },
    "race_ethnicity": {
        "group A": Group(0.089, (-3.99, -2.82, -3.27)),
        "group B": Group(0.190, (-1.95, -1.50, -2.05)),
        "group C": Group(0.319, (-1.52, -0.55, -0.86)),
        "group D": Group(0.262, (1.35, 1.28, 2.66)),
        "group E": Group(0.140, (6.14, 2.69, 1.86)),
    },
    "parental_level_of_education": {
        "some high school": Group(0.179, (-2.82, -2.58, -3.74)),
        "high school": Group(0.196, (-3.37, -3.43, -4.23)),
        "some college": Group(0.226, (0.85, 0.19, 0.66)),
        "associate's degree": Group(0.222, (1.43, 1.47, 1.58)),
        "bachelor's degree": Group(0.118, (3.40, 3.63, 5.07)),
        "master's degree": Group(0.059, (4.32, 5.68, 6.77)),
    },
    "lunch": {
        "standard": Group(0.645, (3.86, 2.57, 2.91)),
        "free/reduced": Group(0.355, (-7.02, -4.67, -5.29)),
    },
    "test_preparation_course": {
        "none": Group(0.642, (-1.97, -2.64, -3.60)),
        "completed": Group(0.358, (3.53, 4.73, 6.46)),
    },
}
RESIDUAL_DEVIATIONS = (13.09, 12.83, 12.40)
RESIDUAL_CORRELATIONS = ((1.0, 0.8893, 0.9099), (0.8893, 1.0, 0.9493), (0.9099, 0.9493, 1.0))
# The residuals' own skews average -0.27; it is a little more here, as the cut at 100 takes some.
RESIDUAL_SKEW = -0.32


def simulate(n_rows: int, seed: int) -> pd.DataFrame:
    """Draw rows with the five groups and three integer scores from 0 to 100.

    Only the generator's uniform draws and plain arithmetic are used, one element at a time:
    numpy may change its normal draws between versions, and BLAS its last bits between machines.
    """
    rng = np.random.default_rng(seed)
    codes = {column: draw_groups(rng, n_rows, groups) for column, groups in GROUPS.items()}
    residuals = draw_residuals(rng, n_rows)
    columns: dict[str, pd.Categorical | np.ndarray] = {
        column: pd.Categorical.from_codes(codes[column], list(groups))
        for column, groups in GROUPS.items()
    }
    for index, (score, mean) in enumerate(zip(SCORES, MEANS, strict=True)):
        points = mean + residuals[index]
        for column, groups in GROUPS.items():
            points += np.array([group.effects[index] for group in groups.values()])[codes[column]]
        columns[score] = np.rint(points).clip(LOWEST, HIGHEST).astype(np.int8)
    return pd.DataFrame(columns)


def draw_groups(rng: np.random.Generator, n_rows: int, groups: dict[str, Group]) -> np.ndarray:
    """Draw for each row the position of its group in `groups`, shape (n_rows,)."""
    upper_edges = np.cumsum([group.share for group in groups.values()])
    # Without the last edge, which rounding may leave just below 1.
    return np.searchsorted(upper_edges[:-1], rng.random(n_rows), side="right").astype(np.int8)


def draw_residuals(rng: np.random.Generator, n_rows: int) -> list[np.ndarray]:
    """Draw what the groups leave unexplained, in points: one array of shape (n_rows,) a score."""
    factor = np.linalg.cholesky(RESIDUAL_CORRELATIONS).round(6)  # LAPACK's last bits may differ
    normals = [draw_normals(rng, n_rows) for _ in SCORES]
    residuals = []
    for weights, deviation in zip(factor, RESIDUAL_DEVIATIONS, strict=True):
        mixed = np.zeros(n_rows)
        for weight, normal in zip(weights, normals, strict=True):
            mixed += weight * normal
        residuals.append(deviation * skew(mixed))
    return residuals


def draw_normals(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    """Draw almost normal values of mean 0 and variance 1, each the sum of twelve uniform draws.

    The tails are a little short (excess kurtosis -0.1), as are those of the public residuals.
    """
    total = np.full(n_rows, -6.0)
    for _ in range(12):
        total += rng.random(n_rows)
    return total


def skew(normals: np.ndarray) -> np.ndarray:
    """Bend standard normal values to the residuals' skew; mean 0 and variance 1 stay."""
    bend = RESIDUAL_SKEW / 6  # x + b (x² - 1) has a skew of 6 b, for a small b
    return (normals + bend * (normals * normals - 1)) / np.sqrt(1 + 2 * bend * bend)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write the table as plain CSV, whole or not at all: a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        table.to_csv(unfinished, index=False, lineterminator="\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; refuse, with a sentence, what cannot be simulated or written."""
    parser = argparse.ArgumentParser(prog="python -m ops.simulate", description=__doc__)
    parser.add_argument("--rows", type=int, default=N_ROWS, help="how many rows (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="same seed, same file (%(default)s)")
    parser.add_argument("--output", type=Path, help=f"where; the bundled sample is {SAMPLE}")
    options = parser.parse_args(arguments)
    if options.rows < 1:
        parser.error(f"--rows is {options.rows}, expected 1 or more: a table needs a row.")
    if options.seed < 0:
        parser.error(f"--seed is {options.seed}, expected 0 or more.")
    if options.output is None:
        if (options.rows, options.seed) != (N_ROWS, SEED):
            parser.error(f"--output is missing; {SAMPLE} holds {N_ROWS} rows of seed {SEED} alone.")
        options.output = SAMPLE
    if options.output.exists() and not options.output.is_file():
        parser.error(f"--output is {options.output}, which is no file. Give the name of a CSV.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    write(simulate(options.rows, options.seed), options.output)
    sys.stdout.write(f"Wrote {options.rows} rows of seed {options.seed} to {options.output}\n")


if __name__ == "__main__":
    main()
