"""Two spreads of one column on one axis, in as many bars as a small picture holds."""

import math
from itertools import pairwise

import numpy as np
from pydantic import BaseModel

from contract.profile import ColumnProfile

N_BARS = 24  # of numbers
N_CATEGORIES = 8  # the rest are told together
OUTER = ("0.01", "0.99")  # quantiles at which a picture of numbers ends
INNER = ("0.25", "0.75")


class Bar(BaseModel, frozen=True):
    """A bin or a category, with its share of the values in the reference and now."""

    label: str
    low: float | None = None  # numbers only; the first and last bar hold all beyond, too
    high: float | None = None
    then: float | None  # None: there is no reference
    now: float


class Spread(BaseModel, frozen=True):
    """A few figures of numbers."""

    mean: float
    low: float  # between these two lies half of the values
    high: float


def bars_of(then: ColumnProfile | None, now: ColumnProfile) -> list[Bar]:
    """Give the bars of values that were counted on one axis; none if there are no values now."""
    if not now.n_values:
        return []
    return _of_numbers(then, now) if now.kind == "numeric" else _of_categories(then, now)


def spread_of(column: ColumnProfile | None) -> Spread | None:
    if column is None or column.mean is None:
        return None
    low, high = (column.quantiles[share] for share in INNER)
    return Spread(mean=column.mean, low=low, high=high)


def _of_numbers(then: ColumnProfile | None, now: ColumnProfile) -> list[Bar]:
    """Merge bins of the axis to bars of about one width, between the outer quantiles of both."""
    edges = np.array(now.axis.edges)
    places = _places(edges, *_ends(then, now))
    shares = [None if each is None else _merged(each, places) for each in (then, now)]
    return [
        Bar(
            label=_label(edges[i], edges[j], edges[places]),
            low=edges[i],
            high=edges[j],
            then=None if shares[0] is None else shares[0][place],
            now=shares[1][place],
        )
        for place, (i, j) in enumerate(pairwise(places))
    ]


def _ends(then: ColumnProfile | None, now: ColumnProfile) -> tuple[float, float]:
    known = [each for each in (then, now) if each is not None and each.quantiles]
    return (
        min(each.quantiles[OUTER[0]] for each in known),
        max(each.quantiles[OUTER[1]] for each in known),
    )


def _places(edges: np.ndarray, low: float, high: float) -> list[int]:
    """Choose edges that cut from low to high most evenly; two at the least."""
    first = int(np.clip(np.searchsorted(edges, low, side="right") - 1, 0, len(edges) - 2))
    last = int(np.clip(np.searchsorted(edges, high), first + 1, len(edges) - 1))
    if np.allclose(np.diff(edges), edges[1] - edges[0]):  # then bars of one width
        return [*range(first, last, math.ceil((last - first) / N_BARS)), last]
    wanted = np.linspace(edges[first], edges[last], N_BARS + 1)
    between = np.abs(edges[:, np.newaxis] - wanted).argmin(axis=0)
    return sorted({first, last, *between.tolist()})


def _merged(column: ColumnProfile, places: list[int]) -> list[float]:
    """Give the share of values between the chosen edges; what lies beyond joins the outer two."""
    below = np.cumsum(column.counts)[:-1] / max(column.n_values, 1)  # at each edge
    reached = below[places]
    reached[0], reached[-1] = 0.0, 1.0 if column.n_values else 0.0
    return np.diff(reached).tolist()


def _label(low: float, high: float, edges: np.ndarray) -> str:
    """Name a bar by its ends, with the digits that tell the edges of all bars apart."""
    if not ((edges - 0.5) % 1).any():  # bins of whole numbers, cut between them
        low, high, width = low + 0.5, high - 0.5, 1.0
    else:
        width = float(np.diff(edges).min())
    digits = max(0, min(6, -math.floor(math.log10(width))))
    ends = dict.fromkeys(f"{end:,.{digits}f}" for end in (low, high))
    return " to ".join(ends)


def _of_categories(then: ColumnProfile | None, now: ColumnProfile) -> list[Bar]:
    """Give the most frequent categories in the contract's order, and the others together."""
    before = then.shares if then is not None else {}
    shares = now.shares
    by_share = sorted(shares, key=lambda each: -max(before.get(each, 0), shares[each]))
    told = {*by_share[:N_CATEGORIES]}
    bars = [
        Bar(label=each, then=before.get(each, 0.0) if then else None, now=share)
        for each, share in shares.items()
        if each in told
    ]
    return bars + _others(then, now, set(shares) - told) + _unseen(then, now)


def _others(then: ColumnProfile | None, now: ColumnProfile, names: set[str]) -> list[Bar]:
    if not names:
        return []
    shares = [sum(each.shares[name] for name in names) if each else None for each in (then, now)]
    return [Bar(label=f"{len(names)} others", then=shares[0], now=shares[1] or 0.0)]


def _unseen(then: ColumnProfile | None, now: ColumnProfile) -> list[Bar]:
    """Tell of categories that the reference does not know, as an older contract may have had."""
    if not now.counts[-1]:
        return []
    before = then.counts[-1] / max(then.n_values, 1) if then else None
    label = f"not known: {', '.join(now.unseen)}"
    return [Bar(label=label, then=before, now=now.counts[-1] / now.n_values)]
