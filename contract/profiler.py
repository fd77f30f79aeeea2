"""Make a profile of columns, in one go or chunk by chunk."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.features import Column, Contract, Feature
from contract.figures import SIGNIFICANT_DIGITS, rounded
from contract.moments import Moments
from contract.profile import Axis, ColumnProfile, PairProfile, Profile

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
N_EVEN = 50  # bins of equal width over a range
N_OCTAVES = 20  # that bins narrow down by towards the ends of a range, and towards 0
WITHOUT_RANGE = range(-10, 40)  # powers of 2 that bins without a range span
MAX_SINGLE = 200  # whole numbers up to so many have a bin each
N_UNSEEN_TOLD = 5
DIGITS_BEYOND = 12  # of a mean, however large it is beside its spread


def axis_of(column: Column) -> Axis:
    """Give the fixed bins or categories of a column, which follow from the contract alone."""
    if isinstance(column, Feature) and column.categories:
        return Axis(kind=column.kind, categories=column.categories)
    whole = column.dtype == "int"
    return Axis(kind="numeric", edges=tuple(_edges(column.range, whole)))


def axes_of(contract: Contract, reference: Profile | None = None) -> dict[str, Axis]:
    """Give each column's axis: the reference's, where it has the column, to be comparable with."""
    known = reference.axes if reference else {}
    axes = {column.name: axis_of(column) for column in contract.columns}
    return {
        name: known[name] if name in known and known[name].kind == axis.kind else axis
        for name, axis in axes.items()
    }


def _edges(ends: tuple[float, float] | None, whole: bool) -> list[float]:
    """Cut a range into bins: evenly, and finer towards its ends and 0, for skewed columns."""
    if ends is not None and whole and 1 <= math.floor(ends[1]) - math.ceil(ends[0]) <= MAX_SINGLE:
        return [n - 0.5 for n in range(math.ceil(ends[0]), math.floor(ends[1]) + 2)]
    edges = _graded() if ends is None else _spanning(*ends)
    if whole:
        edges = {math.floor(edge) + 0.5 for edge in edges}
        edges |= {min(edges) - 1}  # for the least whole number
    return sorted(edges)


def _graded() -> set[float]:
    steps = [2.0**k * quarter for k in WITHOUT_RANGE for quarter in (1, 1.25, 1.5, 1.75)]
    return {0.0, *steps, *(-step for step in steps)}


def _spanning(low: float, high: float) -> set[float]:
    halves = [2.0**-k * part for k in range(2, N_OCTAVES) for part in (1, 1.5)]
    width = high - low
    edges = {low + width * (place / N_EVEN) for place in range(N_EVEN)} | {high}
    edges |= {low + width * half for half in halves} | {high - width * half for half in halves}
    if low < 0 < high:
        edges |= {0.0, *(low * half for half in halves), *(high * half for half in halves)}
    return {edge for edge in edges if low <= edge <= high}


class Profiler:
    """Gathers a profile; the same rows in other chunks give the same profile."""

    def __init__(self, axes: Mapping[str, Axis]) -> None:
        self.axes = dict(axes)
        self.numbers = [name for name, axis in axes.items() if axis.kind == "numeric"]
        self.n_rows = 0
        self.counts = {name: np.zeros(axis.n_counts, np.int64) for name, axis in axes.items()}
        self.unseen: dict[str, set[str]] = {name: set() for name in axes}
        self.bounds = dict.fromkeys(self.numbers, (math.inf, -math.inf))
        self.moments = Moments(len(self.numbers))

    def add(self, columns: Mapping[str, Sequence]) -> None:
        """Take in rows: by column a sequence of numbers or categories, or an Arrow array.

        A gap is None or NaN; a number that is not finite counts as one.
        """
        arrays = {name: _to_arrow(columns[name]) for name in self.axes}
        self.n_rows += len(next(iter(arrays.values()), ()))
        numbers = {name: _to_numbers(arrays[name]) for name in self.numbers}
        for name, axis in self.axes.items():
            if name in numbers:
                self._count_numbers(name, numbers[name][~np.isnan(numbers[name])])
            else:
                self._count_categories(name, axis, arrays[name])
        if numbers:
            self.moments.add(np.column_stack(list(numbers.values())))

    def _count_numbers(self, name: str, values: np.ndarray) -> None:
        if not values.size:
            return
        edges = np.array(self.axes[name].edges)
        bins = np.searchsorted(edges, values, side="right")
        bins[values == edges[-1]] -= 1  # the last bin holds both its edges
        self.counts[name] += np.bincount(bins, minlength=len(edges) + 1)
        low, high = self.bounds[name]
        self.bounds[name] = min(low, float(values.min())), max(high, float(values.max()))

    def _count_categories(self, name: str, axis: Axis, values: pa.Array) -> None:
        for pair in pc.value_counts(values.cast(pa.string())).to_pylist():
            value, count = pair["values"], pair["counts"]
            if value in axis.categories:
                self.counts[name][axis.categories.index(value)] += count
            elif value is not None:
                self.counts[name][-1] += count
                # the first by alphabet, so that chunks in another order tell the same
                self.unseen[name] = set(sorted({*self.unseen[name], value})[:N_UNSEEN_TOLD])

    def profile(self) -> Profile:
        """Sum up all that was taken in, rounded so that another processor gives the same."""
        return Profile(
            n_rows=self.n_rows,
            columns={name: self._column(name) for name in self.axes},
            pairs=tuple(self._pair(i, j) for i, j in combinations(range(len(self.numbers)), 2)),
        )

    def _column(self, name: str) -> ColumnProfile:
        counts = self.counts[name].tolist()
        column = ColumnProfile(
            axis=self.axes[name],
            n_values=sum(counts),
            n_gaps=self.n_rows - sum(counts),
            counts=counts,
            unseen=sorted(self.unseen[name]),
            **(self._figures(name) if name in self.bounds and sum(counts) else {}),
        )
        return column.model_copy(update={"quantiles": _quantiles(column)})

    def _figures(self, name: str) -> dict[str, float | None]:
        place = self.numbers.index(name)
        mean, std = self.moments.mean_of(place), self.moments.std_of(place)
        low, high = self.bounds[name]
        return {"mean": _round_by(mean, std), "std": rounded(std), "min": low, "max": high}

    def _pair(self, i: int, j: int) -> PairProfile:
        mean, std = self.moments.difference(i, j)
        return PairProfile(
            a=self.numbers[i],
            b=self.numbers[j],
            n_rows=int(self.moments.n[i, j]),
            correlation=rounded(self.moments.correlation(i, j)),
            mean=_round_by(mean, std),
            std=rounded(std),
        )


def make_profile(columns: Mapping[str, Sequence], axes: Mapping[str, Axis]) -> Profile:
    """Profile columns (a DataFrame, or a dict of lists or Arrow arrays) on the axes given."""
    profiler = Profiler(axes)
    profiler.add(columns)
    return profiler.profile()


def _quantiles(column: ColumnProfile) -> dict[str, float]:
    """Estimate quantiles from the histogram, each off by a bin's width at the most.

    Inside a bin the values count as evenly spread, as is usual for grouped values; for whole
    numbers with a bin each the estimate is off by 1/2 at the most.
    """
    if column.min is None:
        return {}
    reached = np.cumsum([0, *column.counts]) / column.n_values
    grows = np.concatenate([[True], np.diff(reached) > 0])
    ends = np.clip(column.ends, column.min, column.max)
    places = np.interp(QUANTILES, reached[grows], ends[grows])
    return {f"{share:g}": rounded(float(x)) for share, x in zip(QUANTILES, places, strict=True)}


def _to_arrow(values: Sequence) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    return pa.array(values, from_pandas=True)


def _to_numbers(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _round_by(mean: float | None, std: float | None) -> float | None:
    """Round a mean to the digits that are meaningful beside its spread, however large it is."""
    if not mean:
        return mean
    digits = DIGITS_BEYOND
    if std:
        beyond = math.floor(math.log10(abs(mean))) - math.floor(math.log10(std))
        digits = min(max(SIGNIFICANT_DIGITS + beyond, SIGNIFICANT_DIGITS), DIGITS_BEYOND)
    return float(f"{mean:.{digits}g}")
