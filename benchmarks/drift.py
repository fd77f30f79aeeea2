"""Drift: how often rows of the reference raise a false alarm, and which changes are caught."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.report import Section, make_table, verdict
from contract.drift import compare
from contract.drift_limits import Drift
from contract.features import Contract
from contract.params import load_params
from contract.profile import Profile
from contract.profiler import axes_of, make_profile
from contract.schema import find_failures
from ops.simulate import N_ROWS, simulate

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data/sample/students.csv"
PUBLIC = ROOT.parent / "shared/data/students.csv"  # only its figures are told
SIZES = (200, 1_000, 10_000)
N_TRIALS = 200
MOST_FALSE, FEWEST_CAUGHT = 2, 95  # %
FEW = 500  # below, a warning counts as caught
NEW = "a new one"
SKEWED = {
    "target": {"name": "cost"},
    "features": [
        {"name": "income", "kind": "numeric", "range": [0, 1_000_000]},
        {"name": "claims", "kind": "numeric", "dtype": "int", "range": [0, 1000]},
        {"name": "uptime", "kind": "numeric", "range": [0, 1]},
        {"name": "tariff", "kind": "numeric", "range": [0, 1000]},
        {"name": "region", "kind": "nominal", "categories": ["north", "south", "east"]},
        {"name": "currency", "kind": "nominal", "categories": ["EUR", "CHF"]},
    ],
}


@dataclass(frozen=True)
class Table:
    """Rows that serve as reference, and where more of the same can be drawn, how."""

    name: str
    contract: Contract
    rows: pd.DataFrame
    draw: Callable[[int, int], pd.DataFrame] | None  # n_rows, seed


@dataclass(frozen=True)
class Change:
    """What happens to one column, or two; the first also to what the reference is made of."""

    name: str
    column: str
    of: Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]
    before: Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame] | None = None


def skewed(n_rows: int, seed: int) -> pd.DataFrame:
    """Draw columns with long tails, mostly zeros, next to a limit, and constant ones."""
    rng = np.random.default_rng(seed)
    income = rng.lognormal(10, 0.9, n_rows).clip(0, 1e6).round(2)
    claims = np.where(rng.random(n_rows) < 0.7, 0, rng.geometric(0.1, n_rows)).clip(0, 1000)
    return pd.DataFrame(
        {
            "income": income,
            "claims": claims,
            "uptime": 1 - rng.beta(0.8, 60, n_rows).round(6),
            "tariff": 5.0,
            "region": rng.choice(["north", "south", "east"], n_rows, p=[0.85, 0.13, 0.02]),
            "currency": "EUR",
            "cost": (50 + 120 * claims + income * rng.exponential(0.05, n_rows)).round(2),
        }
    )


def tables() -> Iterator[Table]:
    contract = load_params(ROOT / "params.yaml").contract
    names = contract.spelling_to_name()
    for name, path in (("the bundled sample", SAMPLE), ("the public table", PUBLIC)):
        if path.exists():
            rows = pd.read_csv(path, keep_default_na=False).rename(columns=names)
            yield Table(name, contract, rows, simulate if path == SAMPLE else None)
    made = Contract.model_validate(SKEWED)
    yield Table("skewed and constant columns", made, skewed(N_ROWS, 0), skewed)


def changes(table: Table) -> Iterator[Change]:
    """List what must be caught; what a column without spread cannot show is left out."""
    rows = table.rows
    for column in table.contract.columns:
        if pd.api.types.is_numeric_dtype(rows[column.name]):
            yield from _of_numbers(column.name, rows[column.name], column.dtype)
        else:
            yield from _of_categories(column.name, rows[column.name])
    numbers = rows.select_dtypes("number")
    for a, b in combinations(numbers, 2):
        yield Change("two columns swapped", f"{a}, {b}", _swap(a, b))


def _of_numbers(name: str, values: pd.Series, dtype: str) -> Iterator[Change]:
    """Change numbers, whole ones to whole ones, wherever that leads."""
    mean, std = values.mean(), values.std()

    def changed(to: Callable[[pd.Series], pd.Series]) -> Callable:
        def of(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
            moved = to(rows[name])
            return rows.assign(**{name: moved.round() if dtype == "int" else moved})

        return of

    if std:
        yield Change("0.5 standard deviations up", name, changed(lambda x: x + std / 2))
        yield Change("0.5 standard deviations down", name, changed(lambda x: x - std / 2))
        yield Change("scale halved", name, changed(lambda x: mean + (x - mean) / 2))
    yield Change("times 10", name, changed(lambda x: x * 10))
    yield Change("divided by 10", name, changed(lambda x: x / 10))


def _of_categories(name: str, values: pd.Series) -> Iterator[Change]:
    def new(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        return rows.assign(**{name: rows[name].mask(rng.random(len(rows)) < 0.03, NEW)})

    yield Change("a new category at 3 %", name, new)
    shares = values.value_counts()
    if len(shares) > 1:
        category = (shares / len(values) - 0.1).abs().idxmin()
        from_10 = _with_share(name, category, 0.1, exact=True)
        to_20 = _with_share(name, category, 0.2)
        yield Change("a share from 10 to 20 %", name, to_20, before=from_10)


def _with_share(name: str, category: str, share: float, exact: bool = False) -> Callable:
    """Give a category a share of the rows, the others keeping their proportions."""

    def of(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        others = rows[name][rows[name] != category].to_numpy()
        drawn = rng.choice(others, len(rows))
        is_drawn = rng.random(len(rows)) < share
        if exact:
            is_drawn = np.arange(len(rows)) < share * len(rows)
        return rows.assign(**{name: np.where(is_drawn, category, drawn)})

    return of


def _swap(a: str, b: str) -> Callable:
    return lambda rows, rng: rows.assign(**{a: rows[b], b: rows[a]})


def judge(reference: Profile, rows: pd.DataFrame, contract: Contract, drift: Drift) -> str:
    """Say what drift does with rows: nothing, warn or fail."""
    current = make_profile(rows, axes_of(contract, reference))
    found = compare(reference, current, drift)
    return "fail" if found.findings("fail") else "warn" if found.findings("warn") else "nothing"


def false_alarms(table: Table, drift: Drift, size: int, n_trials: int, fresh: bool) -> list[str]:
    """Judge rows in which nothing changed: drawn with replacement, or anew from their source."""
    reference = make_profile(table.rows, axes_of(table.contract))
    told = []
    for seed in range(n_trials):
        rows = table.draw(size, 10_000 + seed) if fresh else _resampled(table.rows, size, seed)
        told.append(judge(reference, rows, table.contract, drift))
    return told


def caught(table: Table, change: Change, drift: Drift, size: int, n_trials: int) -> list[str]:
    """Say of each trial what caught the change: drift, the schema, or nothing."""
    rng = np.random.default_rng(0)
    before = table.rows if change.before is None else change.before(table.rows, rng)
    reference = make_profile(before, axes_of(table.contract))
    enough = ("warn", "fail") if size < FEW else ("fail",)
    told = []
    for seed in range(n_trials):
        rows = change.of(_resampled(table.rows, size, seed), rng)
        if judge(reference, rows, table.contract, drift) in enough:
            told.append("drift")
        else:
            told.append("schema" if len(find_failures(rows, table.contract)) else "nothing")
    return told


def _resampled(rows: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    return rows.sample(size, replace=True, random_state=seed, ignore_index=True)


def measure_drift(quick: bool) -> Section:
    """Measure both on each table, and say which figures miss their target."""
    drift, n_trials = load_params(ROOT / "params.yaml").drift, 20 if quick else N_TRIALS
    alarms, catches, worst_false, misses = [], [], 0.0, []
    for table in tables():
        for size in SIZES[:2] if quick else SIZES:
            for fresh in (False, True) if table.draw else (False,):
                told = false_alarms(table, drift, size, n_trials, fresh)
                alarms.append([_of(table, fresh), f"{size:,}", *_shares(told, "fail", "warn")])
                worst_false = max(worst_false, alarms[-1][2])
        for change in changes(table):
            found = [
                caught(table, change, drift, size, n_trials)
                for size in (SIZES[:2] if quick else SIZES)
            ]
            rates = [100 - _shares(told, "nothing")[0] for told in found]
            by_drift = min(_shares(told, "drift")[0] for told in found)
            catches.append([change.name, f"{table.name}: {change.column}", *rates, by_drift])
            logger.info("%s", catches[-1])
            if min(rates) < FEWEST_CAUGHT:
                misses.append(f"{change.name}, {table.name}: {change.column}")
    sizes = [f"of {size:,}, %" for size in (SIZES[:2] if quick else SIZES)]
    worst = _worst(catches)
    return Section(
        "19 Drift: false alarms and what is caught",
        (
            f"{n_trials} trials each, at the limits of `params.yaml`, against a reference of "
            f"{N_ROWS:,} rows. First, rows in which nothing changed.",
            make_table(["rows", "number", "fail, %", "warn at most, %"], alarms),
            verdict("false alarms that fail, at worst, %", worst_false, MOST_FALSE),
            f"Then one change at a time, in rows drawn from the reference; the least that any "
            f"column reached, over {len(catches)} columns and pairs. Below {FEW} rows a warning "
            "counts as caught, above only a failure. By drift or by the schema; the last column "
            "is drift alone, at its worst size.",
            make_table(["change", "columns", *sizes, "by drift alone, %"], worst),
            verdict(
                "caught, at worst, %",
                min(min(row[2:-1]) for row in worst),
                FEWEST_CAUGHT,
                at_least=True,
            )
            + (f"\n- **missed**: {'; '.join(misses)}" if misses else ""),
        ),
    )


def _of(table: Table, fresh: bool) -> str:
    return f"{table.name}, {'drawn anew' if fresh else 'resampled'}"


def _shares(told: list[str], *words: str) -> list[float]:
    return [100 * told.count(word) / len(told) for word in words]


def _worst(catches: list[list]) -> list[list]:
    """Give for each kind of change the least that any column reached."""
    by_change: dict[str, list[list]] = {}
    for change, _, *rates in catches:
        by_change.setdefault(change, []).append(rates)
    return [
        [change, len(rates), *(min(column) for column in zip(*rates, strict=True))]
        for change, rates in by_change.items()
    ]
