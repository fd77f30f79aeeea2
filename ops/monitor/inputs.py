"""Gather what the monitor needs from the log, batch by batch, in memory that stays flat."""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.features import PREDICTION, Contract
from contract.monitoring import Edge
from contract.predictions.feature_columns import FEATURES, column_names, with_feature_columns
from contract.predictions.privacy import HASHED
from contract.predictions.read import SCHEMA
from contract.profile import Axis, Profile
from contract.profiler import Profiler

N_EDGES = 10
MOST_TRUTHS = 100_000  # that are kept; the newest
BASE = [name for name in SCHEMA.names if name != FEATURES]


@dataclass
class Gathered:
    """What a window of the log holds."""

    inputs: Profile  # of the rows whose features are stored
    predictions: Profile  # of all rows
    n_rows: int = 0
    n_predictions: Counter[datetime] = field(default_factory=Counter)  # by hour
    n_gaps: Counter[datetime] = field(default_factory=Counter)
    edges: list[Edge] = field(default_factory=list)
    truths: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # and predictions
    hashed: set[str] = field(default_factory=set)  # features of which some are stored as hashes
    n_without_features: int = 0
    n_foreign: int = 0  # rows of contracts that share no feature with this one


def gather(
    batches: Iterable[pa.RecordBatch],
    contract: Contract,
    reference: Profile,
    version: str,
    contracts: Mapping[str, Contract],
) -> Gathered:
    """Profile the features and predictions of all rows on the reference's axes.

    `contracts` are those of the versions in the log. What a row's own contract did not have is no
    gap of it; truths count with this version alone.
    """
    inputs = only(reference, contract.names())
    predictions = only(reference, [PREDICTION])
    kinds = {name: _type(axis) for name, axis in inputs.axes.items()}
    of_inputs, of_predictions = Profiler(inputs.axes), Profiler(predictions.axes)
    lacking = _lacking(contract, contracts)
    n_lacking: Counter[str] = Counter()
    found, nearest = Gathered(inputs, predictions), _Nearest(contract, inputs)
    for batch in batches:
        found.n_rows += len(batch)
        of_predictions.add({name: batch.column("prediction") for name in predictions.axes})
        found.truths = _with_truths(found.truths, batch, version)
        stored = batch.filter(pc.not_equal(batch.column(FEATURES), "{}"))
        found.n_without_features += len(batch) - len(stored)
        columns = features_of(stored, kinds)
        of_inputs.add(columns)
        nearest.add(stored, columns)
        lacks = {
            name: pc.and_(columns[name].is_null(), pc.is_in(stored.column("model"), lacking[name]))
            for name in lacking.keys() & columns.keys()
        }
        n_lacking.update({name: _n_true(mask) for name, mask in lacks.items()})
        if columns and lacks.keys() == columns.keys():
            found.n_foreign += _n_true(reduce(pc.and_, lacks.values()))
        _count_hours(found, batch, stored, columns, lacks)
        _note_hashed(found.hashed, stored, kinds)
    found.inputs = _without(of_inputs.profile(), n_lacking)
    found.predictions, found.edges = of_predictions.profile(), nearest.edges()
    return found


def _lacking(contract: Contract, contracts: Mapping[str, Contract]) -> dict[str, pa.Array]:
    """Give the versions that did not have a feature as it is now, by its name, if there are any."""
    kinds = {
        version: {feature.name: feature.kind for feature in other.features}
        for version, other in contracts.items()
    }
    lacking = {
        feature.name: [each for each in kinds if kinds[each].get(feature.name) != feature.kind]
        for feature in contract.features
    }
    return {name: pa.array(versions) for name, versions in lacking.items() if versions}


def _n_true(mask: pa.BooleanArray) -> int:
    return pc.sum(mask).as_py() or 0


def _without(profile: Profile, n_lacking: Mapping[str, int]) -> Profile:
    """Take away the gaps of rows that could not have the column."""
    columns = {
        name: each.model_copy(update={"n_gaps": each.n_gaps - n_lacking.get(name, 0)})
        for name, each in profile.columns.items()
    }
    return profile.model_copy(update={"columns": columns})


def only(profile: Profile, names: Iterable[str]) -> Profile:
    """Keep these columns, and the pairs among them."""
    columns = {name: each for name, each in profile.columns.items() if name in {*names}}
    pairs = tuple(pair for pair in profile.pairs if {pair.a, pair.b} <= columns.keys())
    return profile.model_copy(update={"columns": columns, "pairs": pairs})


def features_of(batch: pa.RecordBatch, kinds: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    names, typed = column_names(kinds, BASE), with_feature_columns(batch, kinds)
    return {name: typed.column(names[name]) for name in kinds}


def _type(axis: Axis) -> pa.DataType:
    return pa.float64() if axis.kind == "numeric" else pa.string()


def _count_hours(
    found: Gathered,
    batch: pa.RecordBatch,
    stored: pa.RecordBatch,
    columns: Mapping[str, pa.Array],
    lacks: Mapping[str, pa.Array],
) -> None:
    _count(found.n_predictions, pc.floor_temporal(batch.column("time"), unit="hour"))
    hours = pc.floor_temporal(stored.column("time"), unit="hour")
    for name, column in columns.items():
        is_gap = column.is_null()
        if name in lacks:
            is_gap = pc.and_not(is_gap, lacks[name])
        _count(found.n_gaps, hours.filter(is_gap))


def _count(counts: Counter[datetime], hours: pa.Array) -> None:
    for pair in pc.value_counts(hours).to_pylist():
        counts[pair["values"]] += pair["counts"]


def _note_hashed(hashed: set[str], batch: pa.RecordBatch, names: Iterable[str]) -> None:
    features = batch.column(FEATURES)
    if not pc.any(pc.match_substring(features, f'"{HASHED}')).as_py():
        return
    for name in {*names} - hashed:
        key = re.escape(json.dumps(name, ensure_ascii=False))
        if pc.any(pc.match_substring_regex(features, f'{key}: ?"{HASHED}')).as_py():
            hashed.add(name)


def _with_truths(truths: np.ndarray, batch: pa.RecordBatch, version: str) -> np.ndarray:
    counts = pc.and_(pc.equal(batch.column("model"), version), batch.column("truth").is_valid())
    if not pc.any(counts).as_py():
        return truths
    both = [batch.column(name).filter(counts).to_numpy(zero_copy_only=False) for name in PAIR]
    return np.concatenate([truths, np.column_stack(both)])[-MOST_TRUTHS:]


PAIR = ("truth", "prediction")


class _Nearest:
    """Keeps the values nearest to an end of their range."""

    def __init__(self, contract: Contract, reference: Profile) -> None:
        self._features = {
            feature.name: (feature.range, reference.columns[feature.name].std)
            for feature in contract.features
            if feature.range and feature.name in reference.columns
        }
        self._kept: list[tuple[float, Edge]] = []

    def add(self, batch: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> None:
        for name, (ends, std) in self._features.items():
            if name not in columns or not std:
                continue
            values = columns[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            distance = np.minimum(np.abs(values - ends[0]), np.abs(values - ends[1])) / std
            for row in np.argsort(distance, kind="stable")[:N_EDGES]:
                if np.isfinite(distance[row]):
                    edge = _edge(batch, name, float(values[row]), ends, float(distance[row]), row)
                    self._kept.append((edge.distance, edge))
        self._kept = heapq.nsmallest(N_EDGES, self._kept, key=lambda kept: kept[0])

    def edges(self) -> list[Edge]:
        return [edge for _, edge in self._kept]


def _edge(
    batch: pa.RecordBatch,
    name: str,
    value: float,
    ends: tuple[float, float],
    distance: float,
    row: int,
) -> Edge:
    end = min(ends, key=lambda end: abs(value - end))
    return Edge(
        id=batch.column("id")[row].as_py(),
        time=batch.column("time")[row].as_py(),
        column=name,
        value=value,
        end=end,
        distance=round(distance, 3),
    )


def last_hours(counts: Counter[datetime], n_hours: int) -> list[datetime]:
    """Give the hours up to the newest one that has predictions, oldest first."""
    if not counts:
        return []
    newest = max(counts)
    return [newest - timedelta(hours=back) for back in reversed(range(n_hours))]
