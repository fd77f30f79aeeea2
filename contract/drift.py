"""Drift: how far the profile of new rows is from that of a reference, and where that is too far."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import kolmogorov
from scipy.stats import chi2_contingency

from contract import effect_sizes as effect
from contract.drift_limits import ACTIONS, Drift, Limit, Measure
from contract.findings import Comparison, Finding
from contract.profile import ColumnProfile, PairProfile, Profile, not_compared

FEWEST_EXPECTED = 5  # rows in a bin or category, for a chi-square to hold: Cochran (1954)
LEAST_STD = 1e-6  # of the mean's size; a constant column has this one
P_VALUE_DIGITS = 6

Noise = Callable[[float], float]  # what chance exceeds with the probability given


class Effect(NamedTuple):
    """One effect size, what chance does to it, and what it is about in words."""

    measure: Measure
    value: float
    noise: Noise
    detail: str = ""


def compare(reference: Profile, current: Profile, drift: Drift) -> Comparison:
    """Measure all columns and pairs that both profiles have.

    `current` is made on the axes of the reference: `axes_of(contract, reference)`.
    """
    measured, p_values = [], {}
    notes = not_compared(reference.axes, current.axes)
    for name, then in reference.columns.items():
        now = current.columns.get(name)
        if now is None or now.axis != then.axis:
            continue
        limits = drift.of_column(name, then.kind)
        few = min(reference.n_rows, current.n_rows) < drift.min_rows
        for found in _effects_of_column(then, now, drift.n_bins):
            measured.append(_judge((name,), found, limits.get(found.measure), few, drift))
        if then.n_values and now.n_values:
            p_values[name] = _test(then, now)
        else:
            notes.append(f"{name} has no value in the {'rows' if then.n_values else 'reference'}.")
    measured += _pairs(reference, current, drift, measured)
    n_rows = reference.n_rows, current.n_rows
    return Comparison(*n_rows, tuple(measured), p_values, tuple(notes))


def _judge(
    columns: tuple[str, ...], found: Effect, limit: Limit | None, few: bool, drift: Drift
) -> Finding:
    """Hold an effect against its limits; with few rows, what would fail only warns."""
    in_force = {
        action: max(given, found.noise(drift.chance.of(action)))
        for action in ACTIONS
        if limit is not None and (given := limit.of(action)) is not None
    }
    exceeded = [action for action, least in in_force.items() if abs(found.value) > least]
    action = exceeded[-1] if exceeded else None
    if action == "fail" and few:
        action = "warn"
    return Finding(columns, found.measure, found.value, in_force, action, found.detail)


def _effects_of_column(then: ColumnProfile, now: ColumnProfile, n_bins: int) -> Iterator[Effect]:
    of_kind = _effects_of_numbers if then.kind == "numeric" else _effects_of_categories
    if then.n_values and now.n_values:
        yield from of_kind(then, now, n_bins)
    rows = [each.n_values + each.n_gaps for each in (then, now)]
    if all(rows):
        yield Effect(
            "change_of_gaps",
            now.gap_share - then.gap_share,
            lambda chance: effect.share_noise(then.n_gaps, rows[0], now.n_gaps, rows[1], chance),
            f"{then.gap_share:.1%} -> {now.gap_share:.1%} missing",
        )


def _effects_of_numbers(then: ColumnProfile, now: ColumnProfile, n_bins: int) -> Iterator[Effect]:
    m, n = then.n_values, now.n_values
    yield from _effects_of_shape(*_merged(then, now, n_bins), m, n)
    if then.std is None:  # of a single value
        return
    std = _scale(then.std, then.mean)
    yield Effect(
        "wasserstein_distance",
        effect.normalised_wasserstein(_middles(then), _middles(now), then.counts, now.counts, std),
        lambda chance: effect.wasserstein_noise(_middles(then), then.counts, std, m, n, chance),
        f"in reference standard deviations of {std:.4g}",
    )
    yield Effect(
        "difference_of_means",
        effect.difference_of_means(then.mean or 0, now.mean or 0, std),
        lambda chance: effect.means_noise(m, n, chance),
        f"mean {then.mean:.4g} -> {now.mean:.4g}",
    )


def _effects_of_categories(
    then: ColumnProfile, now: ColumnProfile, n_bins: int
) -> Iterator[Effect]:
    m, n = then.n_values, now.n_values
    yield from _effects_of_shape(*_pooled(then, now), m, n)
    grown = [
        (effect.difference_of_means(p, now.shares[category], (p * (1 - p)) ** 0.5), category)
        for category, p in then.shares.items()
        if p < 1 and p * min(m, n) >= FEWEST_EXPECTED
    ]
    if grown:
        value, category = max(grown, key=lambda each: abs(each[0]))
        yield Effect(
            "difference_of_means",
            value,
            lambda chance: effect.means_noise(m, n, chance),
            f"share of {category} {then.shares[category]:.1%} -> {now.shares[category]:.1%}",
        )
    pairs = list(zip(then.axis.categories, then.counts, now.counts, strict=False))
    names = [category for category, before, after in pairs if after and not before]
    unseen = now.counts[-1] + sum(after for _, before, after in pairs if not before)
    yield Effect(
        "unseen_share",
        unseen / n,
        lambda chance: effect.unseen_noise(m, n, chance),
        ", ".join([*now.unseen, *names]),
    )


def _effects_of_shape(then: np.ndarray, now: np.ndarray, m: int, n: int) -> Iterator[Effect]:
    k = len(then)
    yield Effect(
        "population_stability_index",
        effect.population_stability_index(then, now),
        lambda chance: effect.stability_noise(k, m, n, chance),
        f"over {k} bins",
    )
    yield Effect(
        "jensen_shannon_distance",
        effect.jensen_shannon_distance(then, now),
        lambda chance: effect.shannon_noise(k, m, n, chance),
        f"over {k} bins",
    )


def _scale(std: float, mean: float | None) -> float:
    """Give the deviation to measure in, which is above 0 also where nothing varies."""
    return max(std, LEAST_STD * (abs(mean or 0) or 1))


def _middles(column: ColumnProfile) -> np.ndarray:
    return (column.ends[:-1] + column.ends[1:]) / 2


def _merged(then: ColumnProfile, now: ColumnProfile, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Merge neighbouring bins until each holds its part of the reference rows, and enough."""
    m, n = then.n_values, now.n_values
    needed = max(m / n_bins, FEWEST_EXPECTED * max(1, m / n))
    starts, gathered = [0], 0
    for place, count in enumerate(then.counts):
        if gathered >= needed:
            starts.append(place)
            gathered = 0
        gathered += count
    if gathered < needed and len(starts) > 1:
        starts.pop()
    return np.add.reduceat(then.counts, starts), np.add.reduceat(now.counts, starts)


def _pooled(then: ColumnProfile, now: ColumnProfile) -> tuple[np.ndarray, np.ndarray]:
    """Pool the categories that too few rows are expected of, and the unseen."""
    counts = np.array([then.counts, now.counts])
    rare = counts[0] * min(1, now.n_values / then.n_values) < FEWEST_EXPECTED
    pooled = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])
    return tuple(pooled if pooled[:, -1].any() else pooled[:, :-1])


def _pairs(
    reference: Profile, current: Profile, drift: Drift, columns: list[Finding]
) -> Iterator[Finding]:
    """Measure the pairs; one is told of only where it says more than its columns by themselves."""
    told = {(found.columns[0], found.action) for found in columns}
    now_by_name = {pair.name: pair for pair in current.pairs}
    for then in reference.pairs:
        now = now_by_name.get(then.name)
        if now is None or then.std is None or not now.n_rows:
            continue
        limits = drift.of_pair(then.a, then.b)
        few = min(then.n_rows, now.n_rows) < drift.min_rows
        for measured in _effects_of_pair(then, now):
            found = _judge((then.a, then.b), measured, limits.get(measured.measure), few, drift)
            explained = {(c, action) for c in found.columns for action in ("fail", found.action)}
            yield replace(found, action=None) if explained & told else found


def _effects_of_pair(then: PairProfile, now: PairProfile) -> Iterator[Effect]:
    m, n = then.n_rows, now.n_rows
    std = _scale(then.std or 0, then.mean)
    yield Effect(
        "difference_of_pair",
        effect.difference_of_means(then.mean or 0, now.mean or 0, std),
        lambda chance: effect.means_noise(m, n, chance),
        f"mean of the difference {then.mean:.4g} -> {now.mean:.4g}",
    )
    if then.correlation is not None and now.correlation is not None:
        yield Effect(
            "change_of_correlation",
            now.correlation - then.correlation,
            lambda chance: effect.correlation_noise(then.correlation, m, n, chance),
            f"correlation {then.correlation:.3g} -> {now.correlation:.3g}",
        )


def _test(then: ColumnProfile, now: ColumnProfile) -> dict[str, float]:
    """Give the p-value of the usual test, for information: with many rows, all is significant."""
    if then.kind != "numeric":
        table = np.array(_pooled(then, now))
        p = chi2_contingency(table[:, table.any(axis=0)]).pvalue
        return {"chi_square_p": round(float(p), P_VALUE_DIGITS)}
    return _kolmogorov_smirnov(then, now)


def _kolmogorov_smirnov(then: ColumnProfile, now: ColumnProfile) -> dict[str, float]:
    """Compare two histograms by Kolmogorov and Smirnov's greatest distance of what lies below.

    Between two edges the distance may be greater than at them, by the `error` at the most. The
    p-value is the asymptotic one, Smirnov (1948), of the distance at the edges.
    """
    F, G = (np.cumsum([0, *each.counts]) / each.n_values for each in (then, now))
    at_edges = np.abs(F - G).max()
    anywhere = max((F[1:] - G[:-1]).max(), (G[1:] - F[:-1]).max())
    m, n = then.n_values, now.n_values
    p = kolmogorov(at_edges * np.sqrt(m * n / (m + n)))
    return {
        "kolmogorov_smirnov_distance": float(at_edges),
        "kolmogorov_smirnov_error": float(max(anywhere - at_edges, 0)),
        "kolmogorov_smirnov_p": round(float(p), P_VALUE_DIGITS),
    }
