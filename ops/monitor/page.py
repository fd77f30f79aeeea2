"""The report as one HTML file that needs no network: verdict, pictures, figures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contract.monitoring import Hour, Report, Spread, Status, Told

WIDTH, HEIGHT = 240, 100  # of a picture, stretched to the room there is
N_CATEGORIES = 10
VERDICTS: dict[Status, str] = {
    "calm": "Calm",
    "drifted": "Drifted",
    "too_few": "Too few rows to tell",
}


@dataclass(frozen=True)
class Card:
    """A column, or a pair of them, with what is beyond its limits."""

    subject: str
    spread: Spread | None  # of a column
    findings: list[Told]

    @property
    def action(self) -> str:
        return "fail" if any(found.action == "fail" for found in self.findings) else "warn"


@dataclass(frozen=True)
class HourlyPicture:
    """One figure by the hour."""

    title: str
    most: str
    svg: Markup


def page_of(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(__file__.rpartition("/")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"drawn": draw_numbers, "largest": largest_categories}
    spreads = [*([report.prediction] if report.prediction else []), *report.columns]
    subjects = dict.fromkeys(found.subject for found in report.findings)  # the furthest first
    by_name = {each.name: each for each in spreads}
    cards = [
        Card(name, by_name.get(name), [each for each in report.findings if each.subject == name])
        for name in subjects
    ]
    return environment.get_template("page.html.jinja").render(
        report=report,
        verdict=VERDICTS[report.status],
        moved=sorted(cards, key=lambda card: card.action != "fail"),
        still=[each for each in spreads if each.name not in subjects],
        hourly=draw_hours(report.by_hour),
    )


def draw_numbers(spread: Spread) -> Markup:
    """Draw the window's shares as narrow bars over the wide ones of the reference."""
    highest = max([*spread.then, *spread.now, 1e-9])
    width = WIDTH / max(len(spread.labels), 1)
    return _svg(
        _bar(kind, place * width + inset, width - 0.6 - 2 * inset, share / highest, said)
        for kind, shares, inset in (("then", spread.then, 0), ("now", spread.now, width / 5))
        for place, (share, label) in enumerate(zip(shares, spread.labels, strict=True))
        for said in [f"{label}: {share:.1%}"]
    )


def largest_categories(spread: Spread) -> list[tuple[str, float, float]]:
    """Give the categories with the greatest shares, each with its share then and now, in order."""
    rows = [row for row in zip(spread.labels, spread.then, spread.now, strict=True) if any(row[1:])]
    return sorted(rows, key=lambda row: -max(row[1:]))[:N_CATEGORIES]


def draw_hours(hours: Sequence[Hour]) -> list[HourlyPicture]:
    """Draw volume, refusals and gaps, each by the hour."""
    figures = {
        "Predictions": ([hour.n_predictions for hour in hours], "{:,}"),
        "Refused values": ([hour.n_rejected for hour in hours], "{:,}"),
        "Missing values": ([hour.gap_share for hour in hours], "{:.1%}"),
    }
    return [
        HourlyPicture(title, form.format(max(values, default=0)), _by_hour(hours, values, form))
        for title, (values, form) in figures.items()
    ]


def _by_hour(hours: Sequence[Hour], values: Sequence[float], form: str) -> Markup:
    width, most = WIDTH / max(len(hours), 1), max(values, default=0) or 1
    return _svg(
        _bar("now", place * width, width - 0.6, value / most, said)
        for place, (hour, value) in enumerate(zip(hours, values, strict=True))
        for said in [f"{hour.hour:%m-%d %H:%M} UTC: {form.format(value)}"]
    )


def _bar(kind: str, x: float, width: float, part: float, said: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"><title>{}</title>'
        "</rect>"
    ).format(kind, x, HEIGHT * (1 - part), max(width, 0.5), HEIGHT * part, said)


def _svg(bars: Iterable[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>').format(
        WIDTH, HEIGHT, Markup("").join(bars)
    )
