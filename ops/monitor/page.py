"""The report as one HTML file that needs no network: status, pictures, figures."""

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contract.monitoring import Hour, Report, Spread

WIDTH, HEIGHT, GAP = 460, 120, 2
N_CATEGORIES = 10


def page_of(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(__file__.rpartition("/")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drifted = {found.subject for found in report.findings if found.action == "fail"}
    spreads = [*([report.prediction] if report.prediction else []), *report.columns]
    pictures = [(each, each.name in drifted, picture_of(each)) for each in spreads]
    pictures.sort(key=lambda picture: not picture[1])
    return environment.get_template("page.html.jinja").render(
        report=report, pictures=pictures, volume=volume_of(report.by_hour)
    )


def picture_of(spread: Spread) -> Markup:
    """Draw the window's shares over the reference's, as bars of an SVG."""
    return _numbers(spread) if spread.kind == "numeric" else _categories(spread)


def _numbers(spread: Spread) -> Markup:
    highest = max([*spread.then, *spread.now, 1e-9])
    width = WIDTH / max(len(spread.labels), 1)
    bars = [
        _bar(place * width + inset, share / highest, width - GAP - 2 * inset, kind, label)
        for kind, shares, inset in (("then", spread.then, 0), ("now", spread.now, width / 5))
        for place, (share, label) in enumerate(zip(shares, spread.labels, strict=True))
    ]
    ends = spread.labels[0].split(" to ")[0], spread.labels[-1].split(" to ")[-1]
    axis = Markup('<text x="0" y="{y}">{}</text><text x="{x}" y="{y}" class="end">{}</text>')
    return _svg(HEIGHT + 18, [*bars, axis.format(*ends, x=WIDTH, y=HEIGHT + 14)])


def _bar(x: float, part: float, width: float, kind: str, label: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title>'
        "</rect>"
    ).format(kind, x, HEIGHT * (1 - part), max(width, 1), HEIGHT * part, label)


def _categories(spread: Spread) -> Markup:
    rows = list(zip(spread.labels, spread.then, spread.now, strict=True))
    rows = [row for row in rows if row[1] or row[2]]
    rows = sorted(rows, key=lambda row: -max(row[1], row[2]))[:N_CATEGORIES]
    highest, parts = max([max(row[1:]) for row in rows], default=1), []
    line = Markup(
        '<text x="0" y="{y}">{label}</text>'
        '<rect class="then" x="190" y="{a}" width="{then:.1f}" height="9"/>'
        '<rect class="now" x="190" y="{b}" width="{now:.1f}" height="9"/>'
        '<text x="{x}" y="{y}" class="end">{share}</text>'
    )
    for place, (label, then, now) in enumerate(rows):
        top = 26 * place
        parts.append(
            line.format(
                y=top + 14,
                a=top,
                b=top + 10,
                label=label if len(label) < 26 else f"{label[:24]}…",
                then=150 * then / highest,
                now=150 * now / highest,
                x=WIDTH,
                share=f"{then:.0%} → {now:.0%}",
            )
        )
    return _svg(max(26 * len(rows), 26), parts)


def volume_of(hours: tuple[Hour, ...]) -> Markup:
    highest = max([hour.n_predictions for hour in hours], default=0) or 1
    width = WIDTH / max(len(hours), 1)
    bars = [
        _bar(
            place * width,
            hour.n_predictions / highest,
            width - GAP,
            "now",
            f"{hour.hour:%m-%d %H:00}: {hour.n_predictions:,} predictions",
        )
        for place, hour in enumerate(hours)
    ]
    return _svg(HEIGHT, bars)


def _svg(height: float, parts: list[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(
        WIDTH, height, Markup("").join(parts)
    )
