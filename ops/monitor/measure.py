"""Make the report of a window of the prediction log."""

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa

from contract.artifact import Manifest
from contract.drift import compare
from contract.features import Contract
from contract.findings import Comparison, Finding
from contract.monitoring import (
    Hour,
    LiveError,
    Rejected,
    Report,
    Seen,
    Spread,
    Status,
    Told,
)
from contract.params import Params
from contract.predictions.counts import ModelCount, count
from contract.predictions.read import Reader, Window
from contract.profile import ColumnProfile, Profile
from ops.monitor.inputs import Gathered, gather, last_hours, only
from ops.monitor.live_error import FEWEST, live_error

N_HOURS = 48
N_BINS = 24  # of a picture
N_LABELS = 12  # categories of a picture, and reasons of refusals


def measure(
    reader: Reader, window: Window, manifest: Manifest, reference: Profile, params: Params
) -> Report:
    """Hold a window of the log against the profile of the rows that the model was trained on."""
    contract, contracts = manifest.contract, reader.contracts()
    found = gather(reader.batches(window), contract, reference, manifest.version, contracts)
    counted, n_rows = count(reader, window), found.n_rows
    compared = _compare(reference, found, params)
    error = live_error(found.truths, manifest, params.score)
    told = [_told(each) for comparison in compared for each in comparison.findings()]
    n_judged = n_rows - found.n_foreign
    status = _status(n_judged, params.drift.min_rows, told, error)
    return Report(
        made=datetime.now(UTC),
        log=reader.name,
        since=window.since,
        until=window.until,
        n_rows=n_rows,
        model=manifest.version,
        status=status,
        summary=_summary(status, n_judged, params.drift.min_rows, told, error),
        versions=[_seen(each) for each in counted.by_model],
        findings=told,
        notes=_notes(contracts, manifest, compared, found),
        columns=_spreads(reference, found.inputs),
        prediction=next(iter(_spreads(reference, found.predictions)), None),
        by_hour=_hours(found, reader.rejections(window), len(contract.features)),
        n_rejected=counted.n_rejected,
        rejected=[
            Rejected(field=each.field, rule=each.rule, n_values=each.n_values)
            for each in counted.rejected[:N_LABELS]
        ],
        edges=found.edges,
        live_error=error,
    )


def _compare(reference: Profile, found: Gathered, params: Params) -> list[Comparison]:
    """Compare features, but for those of which there are hashes, and predictions."""
    profiles = [only(found.inputs, found.inputs.columns.keys() - found.hashed), found.predictions]
    return [
        compare(only(reference, profile.columns), profile, params.drift)
        for profile in profiles
        if profile.n_rows and profile.columns
    ]


def _seen(model: ModelCount) -> Seen:
    return Seen(
        version=model.version,
        n_predictions=model.n_predictions,
        first=model.first,
        last=model.last,
    )


def _spreads(reference: Profile, current: Profile) -> list[Spread]:
    return [_spread(name, reference.columns[name], now) for name, now in current.columns.items()]


def _told(found: Finding) -> Told:
    return Told(
        subject=found.subject,
        measure=found.measure,
        value=round(found.value, 4),
        limit=round(found.limit, 4),
        action=found.action,
        detail=found.detail,
    )


def _status(n_rows: int, min_rows: int, told: list[Told], error: LiveError | None) -> Status:
    if any(each.action == "fail" for each in told) or (error is not None and error.is_worse):
        return "drifted"
    return "too_few" if n_rows < min_rows else "calm"


def _summary(
    status: Status, n_rows: int, min_rows: int, told: list[Told], error: LiveError | None
) -> str:
    if status == "too_few":
        few = "1 prediction is" if n_rows == 1 else f"{n_rows:,} predictions are"
        return f"{few} too few to judge, expected {min_rows:,} or more."
    failed = list(dict.fromkeys(each.subject for each in told if each.action == "fail"))
    parts = []
    if failed:
        verb = "have" if len(failed) > 1 else "has"
        parts.append(f"{', '.join(failed)} {verb} drifted")
    if error is not None and error.is_worse:
        parts.append(f"{error.score} is {error.value:.4g}, {error.promised:.4g} was promised")
    if parts:
        return f"{'; '.join(parts)}, over {n_rows:,} predictions."
    n_warned = sum(each.action == "warn" for each in told)
    warned = f" {n_warned} measures are worth a look." if n_warned else ""
    return f"{n_rows:,} predictions look like the rows that the model was trained on.{warned}"


def _notes(
    contracts: dict[str, Contract],
    manifest: Manifest,
    compared: list[Comparison],
    found: Gathered,
) -> list[str]:
    """Say what could not be measured, and why."""
    names = set(manifest.contract.names())
    notes = [
        f"Model {version} had other features: {', '.join(sorted(differs))}. "
        "Its rows count with the columns that both have."
        for version, contract in contracts.items()
        if (differs := names ^ set(contract.names()))
    ]
    notes += [note for comparison in compared for note in comparison.notes]
    if found.hashed:
        names = ", ".join(sorted(found.hashed))
        notes.append(f"The log holds hashes of {names}, of which no drift can be told.")
    if found.n_without_features:
        notes.append(f"{found.n_without_features:,} rows are stored without their features.")
    if not found.predictions.columns:
        notes.append("The model's reference has no predictions: export it again, make repro.")
    if 0 < len(found.truths) < FEWEST:
        notes.append(
            f"{len(found.truths)} truths are too few for the live error, expected {FEWEST} or more."
        )
    return notes


def _spread(name: str, then: ColumnProfile, now: ColumnProfile) -> Spread:
    labels, shares = (_bins if then.kind == "numeric" else _categories)(then, now)
    return Spread(
        name=name,
        kind=then.kind,
        n_values=now.n_values,
        n_gaps=now.n_gaps,
        labels=labels,
        then=shares[0],
        now=shares[1],
        mean_then=then.mean,
        mean_now=now.mean,
    )


def _bins(then: ColumnProfile, now: ColumnProfile) -> tuple[list[str], list[tuple[float, ...]]]:
    """Merge the axis' bins into some of equal width over what either holds."""
    ends = [each for p in (then, now) for each in (p.min, p.max) if each is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, N_BINS + 1)
    shares = []
    for profile in (then, now):
        middles = (profile.ends[:-1] + profile.ends[1:]) / 2
        place = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, N_BINS - 1)
        counts = np.bincount(place, weights=profile.counts, minlength=N_BINS)
        shares.append(_rounded(counts / max(profile.n_values, 1)))
    labels = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)]
    return labels, shares


def _categories(
    then: ColumnProfile, now: ColumnProfile
) -> tuple[list[str], list[tuple[float, ...]]]:
    labels = [*then.axis.categories, "(unseen)"]
    return labels, [
        _rounded(np.array(profile.counts) / max(profile.n_values, 1)) for profile in (then, now)
    ]


def _rounded(shares: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(share), 5) for share in shares)


def _hours(found: Gathered, rejections: pa.Table, n_features: int) -> list[Hour]:
    n_rejected: Counter[datetime] = Counter()
    for row in rejections.select(["time", "count"]).to_pylist():
        n_rejected[row["time"].replace(minute=0, second=0, microsecond=0)] += row["count"]
    return [
        Hour(
            hour=hour,
            n_predictions=(n := found.n_predictions[hour]),
            n_rejected=n_rejected[hour],
            gap_share=round(found.n_gaps[hour] / max(n * n_features, 1), 5),
        )
        for hour in last_hours(found.n_predictions + n_rejected, N_HOURS)
    ]
