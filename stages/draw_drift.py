"""Draw a small picture of each drifted column, the reference over the current rows, as SVG.

Written by hand rather than by a library: a picture of bars needs none, and the same figures give
the same bytes. It follows the reader's light or dark page.
"""

import re
from html import escape

import numpy as np

from contract.profile import ColumnProfile
from stages.tell_drift import Drifted

N_PICTURES = 20
N_BINS = 25
N_CATEGORIES = 10  # with the greatest changes
WIDTH, LEFT, TOP, LINE, DEPTH = 480, 16, 96, 40, 150
SMALL, LARGE = 1e-3, 1e9
N_ACROSS = 68  # letters
BARS = (170, 230)  # of categories: where they begin, and how long the longest is
N_LETTERS = 24  # of a category, beside its bars
UNSEEN = "(unseen)"
STYLE = """<style>
  text { font: 12px system-ui, sans-serif; fill: #22303c }
  .title { font-weight: bold; font-size: 14px }
  .panel { fill: #fff } .faint { fill: #5d6f7e } .then { fill: #8fa9bd } .now { fill: #d9722b }
  .line { fill: none; stroke: #d9722b; stroke-width: 2 } .axis { stroke: #9fb1bf }
  @media (prefers-color-scheme: dark) {
    text { fill: #e3eaf0 } .panel { fill: #1a2128 } .faint { fill: #a3b4c2 } .then { fill: #5f7d94 }
    .now { fill: #f08b45 } .line { stroke: #f08b45 } .axis { stroke: #566673 }
  }
</style>"""


def draw_columns(drift: Drifted) -> dict[str, str]:
    """Give an SVG for each column that drifted by itself, by a name that suits a file."""
    by_column = {}
    for found in drift.findings():
        if len(found.columns) == 1:
            by_column.setdefault(found.columns[0], found)  # the greatest excess comes first
    drawn = {}
    for name, found in list(by_column.items())[:N_PICTURES]:
        then, now = (profile.columns[name] for profile in (drift.reference, drift.current))
        place = list(drift.reference.columns).index(name) + 1
        measure = found.measure.replace("_", " ")
        told = [f"{found.action}: {measure} {found.value:.3g}, limit {found.limit:.3g}"]
        told.append(_mean(then, now) if then.kind == "numeric" else found.detail)
        draw = _draw_numbers if then.kind == "numeric" else _draw_categories
        drawn[f"{place:02d}-{_slug(name)}"] = draw(name, told, then, now)
    return drawn


def _slug(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name, flags=re.ASCII)[:60]


def _mean(then: ColumnProfile, now: ColumnProfile) -> str:
    means = " -> ".join(_figure(each.mean or 0) for each in (then, now))
    stds = " -> ".join(_figure(each.std or 0) for each in (then, now))
    return f"mean {means}, standard deviation {stds}"


def _figure(value: float) -> str:
    """Write a number to four digits, without powers of ten where it is of a usual size."""
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.10g}" if SMALL <= abs(rounded) < LARGE else f"{rounded:g}"


def _frame(title: str, told: list[str], height: int, parts: list[str]) -> str:
    head = _text(LEFT, 26, _cut(title, N_ACROSS), "title")
    for place, line in enumerate(told):
        head += _text(LEFT, 46 + 17 * place, _cut(line.replace("->", "→"), N_ACROSS), "faint")
    legend = (
        f'<rect class="then" x="{LEFT}" y="76" width="10" height="10"/>'
        f"{_text(LEFT + 15, 85, 'reference')}"
        f'<rect class="now" x="{LEFT + 80}" y="76" width="10" height="10"/>'
        f"{_text(LEFT + 95, 85, 'these rows')}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}">\n{STYLE}\n'
        f'<rect class="panel" width="{WIDTH}" height="{height}" rx="6"/>\n{head}\n{legend}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text{of_kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _draw_numbers(name: str, told: list[str], then: ColumnProfile, now: ColumnProfile) -> str:
    """Draw the reference as bars and the current rows as a line of steps over them."""
    ends = _shown(then, now)
    shares = [_shares(profile, ends) for profile in (then, now)]
    top, floor = max(map(max, shares)) or 1, TOP + 14 + DEPTH
    xs = np.linspace(LEFT, WIDTH - LEFT, len(ends))
    heights = [DEPTH * share / top for share in shares]
    bars = [
        f'<rect class="then" x="{x + 0.5:.1f}" y="{floor - height:.1f}" '
        f'width="{xs[1] - xs[0] - 1:.1f}" height="{height:.1f}"/>'
        for x, height in zip(xs, heights[0], strict=False)
    ]
    steps = [f"M{LEFT},{floor}"]
    for x, height in zip(xs, heights[1], strict=False):
        steps.append(f"L{x:.1f},{floor - height:.1f}L{x + xs[1] - xs[0]:.1f},{floor - height:.1f}")
    line = f'<path class="line" d="{"".join(steps)}L{WIDTH - LEFT},{floor}"/>'
    axis = f'<path class="axis" d="M{LEFT},{floor}H{WIDTH - LEFT}"/>'
    ticks = [
        _text(x, floor + 17, _figure(float(f"{value:.3g}")), "faint", anchor)
        for x, value, anchor in (
            (LEFT, ends[0], "start"),
            (WIDTH / 2, (ends[0] + ends[-1]) / 2, "middle"),
            (WIDTH - LEFT, ends[-1], "end"),
        )
    ]
    return _frame(name, told, floor + 28, [*bars, line, axis, *ticks])


def _shown(then: ColumnProfile, now: ColumnProfile) -> np.ndarray:
    """Cut what both hold, but for the outermost hundredths of the rows, into even bins."""
    spans = [profile.quantiles for profile in (then, now) if profile.quantiles]
    low, high = min(q["0.01"] for q in spans), max(q["0.99"] for q in spans)
    margin = (high - low) / N_BINS or 0.5
    return np.linspace(low - margin, high + margin, N_BINS + 1)


def _shares(profile: ColumnProfile, ends: np.ndarray) -> np.ndarray:
    """Give the share of values in other bins, taking them as evenly spread within their own."""
    if not profile.n_values:
        return np.zeros(len(ends) - 1)
    below = np.cumsum([0, *profile.counts]) / profile.n_values
    places = np.clip(profile.ends, profile.min, profile.max)
    return np.diff(np.interp(ends, places, below))


def _draw_categories(name: str, told: list[str], then: ColumnProfile, now: ColumnProfile) -> str:
    """Draw two bars for each category; those that changed least give way if there are many."""
    before, after = then.shares, now.shares
    by_change = sorted(before, key=lambda category: -abs(after[category] - before[category]))
    shown = [category for category in before if category in by_change[:N_CATEGORIES]]
    rows = [(category, before[category], after[category]) for category in shown]
    if now.counts[-1]:
        unseen = now.counts[-1] / max(now.n_values, 1)
        rows.append((f"{', '.join(now.unseen)} {UNSEEN}", 0.0, unseen))
    longest = max(max(share) for _, *share in rows) or 1
    parts = []
    for place, (category, *shares) in enumerate(rows):
        y = TOP + 14 + LINE * place
        parts.append(_text(LEFT, y + 19, _cut(category, N_LETTERS)))
        for kind, share, down in zip(("then", "now"), shares, (0, 15), strict=True):
            length = BARS[1] * share / longest
            parts.append(
                f'<rect class="{kind}" x="{BARS[0]}" y="{y + down}" '
                f'width="{length:.1f}" height="13"/>'
            )
            parts.append(_text(BARS[0] + length + 5, y + down + 11, f"{share:.1%}", "faint"))
    if len(before) > len(shown):
        parts.append(
            _text(LEFT, TOP + 24 + LINE * len(rows), "(changed less: the others)", "faint")
        )
    return _frame(name, told, TOP + 18 + LINE * len(rows) + 16 * (len(before) > len(shown)), parts)


def _cut(text: str, n_letters: int) -> str:
    return text if len(text) <= n_letters else f"{text[: n_letters - 1]}…"
