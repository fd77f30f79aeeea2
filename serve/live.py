"""What the prediction log holds at this moment: its last day, and its newest rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from contract.features import PREDICTION, Contract, Feature
from contract.predictions.counts import N_HOURS, HourCount, Stats, count
from contract.predictions.feature_columns import parse_features
from contract.predictions.privacy import HASHED
from contract.predictions.pruning import first_id
from contract.predictions.read import FileReader, Window
from contract.profile import Axis, ColumnProfile, Profile
from contract.profiler import axis_of, make_profile
from serve.histogram import Bar, Spread, bars_of, spread_of

N_ROWS = 5_000  # that are read, at the most, ...
N_CELLS = 50_000  # ... and fewer where there are many features
LEAST_ROWS = 500
NEWEST = "SELECT p.features, p.prediction FROM predictions p WHERE {in_window} ORDER BY {in_order}"
# Rows by their place in the file, which grows with time but for rows committed at once: as quick
# with a million of them an hour as with ten. Ids begin with their time.
FIRST_OF_EACH = """SELECT e.value, (SELECT p.seq FROM predictions p WHERE p.id >= e.value
    ORDER BY p.id LIMIT 1) FROM json_each(%(ids)s) e ORDER BY e.value"""
NEXT = "SELECT max(p.seq) + 1 FROM predictions p"
ABSENT = object()


class LiveColumn(BaseModel, frozen=True):
    """One feature, or the predictions, beside the rows that the model was trained on."""

    name: str
    kind: str
    unit: str
    n_values: int
    n_gaps: int
    n_hashed: int
    bars: list[Bar]
    then: Spread | None  # numbers only
    now: Spread | None
    gap_share_then: float | None
    note: str  # what cannot be shown; '' if all can


class Live(BaseModel, frozen=True):
    """The live view."""

    read: datetime
    n_last: int  # the newest so many rows were read, if there are so many
    first: datetime | None  # of them
    last: datetime | None
    n_last_day: int
    hours: list[HourCount]  # the last 24, up to the present one; by the place of rows, hence about
    stats: Stats  # of the newest rows
    columns: list[LiveColumn]
    notes: list[str]


@dataclass(frozen=True)
class Known:
    """What rows are held against: the contract in service, and the rows of its training."""

    contract: Contract
    reference: Profile | None


def look(log_path: Path, known: Known) -> Live:
    """Read the newest rows; raises LogError that says why they cannot be read."""
    now, n_last = datetime.now(UTC), n_rows_read(known.contract)
    reader, window = FileReader(log_path), Window(last=n_last)
    stats = count(reader, window)
    rows = reader.ask(NEWEST, window)
    hours = count_hours(reader, now)
    columns, notes = [], []
    if rows:
        columns = columns_of([parse_features(text) for text, _ in rows], known)
        columns.append(_predictions([y for _, y in rows], known))
        notes = _notes(stats)
    return Live(
        read=now,
        n_last=n_last,
        first=min((model.first for model in stats.by_model), default=None),
        last=max((model.last for model in stats.by_model), default=None),
        n_last_day=sum(hour.n_predictions for hour in hours),
        hours=hours,
        stats=stats,
        columns=columns,
        notes=notes,
    )


def n_rows_read(contract: Contract) -> int:
    return max(LEAST_ROWS, min(N_ROWS, N_CELLS // len(contract.features)))


def count_hours(reader: FileReader, now: datetime) -> list[HourCount]:
    """Count the predictions of the last 24 hours, without reading them."""
    last = now.replace(minute=0, second=0, microsecond=0)
    hours = [last - timedelta(hours=ago) for ago in reversed(range(N_HOURS))]
    ids = [first_id(hour.timestamp()) for hour in hours]
    found = dict(reader.ask(FIRST_OF_EACH, ids=json.dumps(ids)))
    (after,) = reader.ask(NEXT)[0]
    places = [found[first] or after or 0 for first in ids] + [after or 0]
    return [
        HourCount(hour=hour, n_predictions=max(end - begin, 0))
        for hour, (begin, end) in zip(hours, pairwise(places), strict=True)
    ]


def columns_of(rows: Sequence[Mapping[str, Any]], known: Known) -> list[LiveColumn]:
    """Profile each feature of logged rows, each on the axis of the reference."""
    before = known.reference.columns if known.reference else {}
    return [
        _column(each, [row.get(each.name, ABSENT) for row in rows], before.get(each.name))
        for each in known.contract.features
    ]


def _predictions(y_pred: list[float | None], known: Known) -> LiveColumn:
    """Profile the predictions, beside those of the training rows."""
    target = known.contract.target
    column = Feature.model_construct(kind="numeric", **target.model_dump(exclude={"kind"}))
    before = known.reference.columns.get(PREDICTION) if known.reference else None
    return _column(column, y_pred, before)


def _column(feature: Feature, values: list, then: ColumnProfile | None) -> LiveColumn:
    """Profile one column; a value of another contract, or a hash, is none."""
    n_hashed = sum(isinstance(value, str) and value.startswith(HASHED) for value in values)
    values = [value for value in values if _fits(value, feature)]
    if then is not None and then.kind != feature.kind:
        then = None
    axis = then.axis if then else axis_of(feature)
    now = _profile(values, axis)
    return LiveColumn(
        name=feature.name,
        kind=feature.kind,
        unit=feature.unit,
        n_values=now.n_values,
        n_gaps=now.n_gaps,
        n_hashed=n_hashed,
        bars=bars_of(then, now),
        then=spread_of(then),
        now=spread_of(now),
        gap_share_then=then.gap_share if then else None,
        note=_note(now, n_hashed, then),
    )


def _fits(value: Any, feature: Feature) -> bool:
    if value is None:
        return True
    if feature.kind == "numeric":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) and not value.startswith(HASHED)


def _profile(values: list, axis: Axis) -> ColumnProfile:
    return make_profile({"": values}, {"": axis}).columns[""]


def _note(now: ColumnProfile, n_hashed: int, then: ColumnProfile | None) -> str:
    if n_hashed and not now.n_values:
        return "Its values are hashed in the log (PREDICTION_LOG_FEATURES), so they cannot be shown"
    if now.n_gaps and not now.n_values:
        return "It is missing in all of these rows."
    if not now.n_values:
        return "None of these rows holds it."
    if then is None:
        return "The model's reference.json does not have it, so the logged rows stand alone."
    return f"Hashed in {n_hashed:,} of the rows, which are left out." if n_hashed else ""


def _notes(stats: Stats) -> list[str]:
    """Say what the features of these rows cannot tell."""
    n, n_without = stats.n_predictions, stats.n_without_features
    if not n_without:
        return []
    which = "these rows" if n_without == n else f"{n_without:,} of these rows"
    return [f"No feature is stored of {which}: PREDICTION_LOG_FEATURES was off."]
