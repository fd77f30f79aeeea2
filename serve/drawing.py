"""Where the shapes of small pictures go; colours and lines are the stylesheet's."""

from collections.abc import Sequence
from typing import NamedTuple

from serve.histogram import Bar

WIDTH, HEIGHT = 300.0, 90.0  # of the viewBox; a picture is stretched to its place
GAP = 0.15  # between two bars, of a bar's room


class Rect(NamedTuple):
    x: float
    y: float
    width: float
    height: float


class Histogram(NamedTuple):
    """Rows now as bars, the reference as the outline of its bars; '' if there is none."""

    rects: list[Rect]
    outline: str


def histogram(bars: Sequence[Bar]) -> Histogram:
    """Draw numbers; areas are shares, as bars may have several widths."""
    low, high = bars[0].low, bars[-1].high
    scale = WIDTH / (high - low)
    places = [((bar.low - low) * scale, (bar.high - low) * scale) for bar in bars]
    now = [bar.now / (right - left) for bar, (left, right) in zip(bars, places, strict=True)]
    then = [
        (bar.then or 0) / (right - left) for bar, (left, right) in zip(bars, places, strict=True)
    ]
    unit = HEIGHT / (max(*now, *then) or 1)
    rects = [
        _rounded(Rect(left, HEIGHT - share * unit, right - left, share * unit))
        for (left, right), share in zip(places, now, strict=True)
    ]
    if all(bar.then is None for bar in bars):
        return Histogram(rects, "")
    steps = [
        f"V{HEIGHT - share * unit:.1f}H{right:.1f}"
        for (_, right), share in zip(places, then, strict=True)
    ]
    return Histogram(rects, f"M0 {HEIGHT:g}{''.join(steps)}V{HEIGHT:g}")


def counts_drawn(counts: Sequence[int]) -> list[Rect]:
    """Draw counts side by side; where there was any, there is at least a line."""
    most, room = max(counts, default=0) or 1, WIDTH / max(len(counts), 1)
    heights = [max(HEIGHT * n / most, 1.0 if n else 0.0) for n in counts]
    return [
        _rounded(Rect((place + GAP / 2) * room, HEIGHT - height, room * (1 - GAP), height))
        for place, height in enumerate(heights)
    ]


def _rounded(rect: Rect) -> Rect:
    return Rect(*(round(number, 2) for number in rect))
