"""What the templates know beside what a route tells them: the model in service, and words."""

import json
import math
import shlex
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from flask import Flask

from serve.drawing import counts_drawn, histogram

NO_BREAK = "\u00a0"
LARGEST_PAIR = 3.55  # of leading digits; from the rule cited below


def prepare_pages(app: Flask) -> None:
    """Let the templates use the model in service, and the functions below as filters."""
    filters = (label, lower_first, rounded_to, figure, times, percent, ago)
    filters += (example_of, pretty_json, shell, histogram, counts_drawn)
    app.jinja_env.filters |= {function.__name__: function for function in filters}

    @app.context_processor
    def in_service() -> dict[str, Any]:
        parts = app.extensions["serve"]
        manifest = parts.serving.current.model.manifest
        return {
            "manifest": manifest,
            "contract": manifest.contract,
            "max_upload_bytes": parts.settings.max_upload_bytes,
        }


def label(name: str) -> str:
    """Turn the name of a column or score into words: floor_area to Floor area."""
    words = name.replace("_", " ").strip() or name
    return words[:1].upper() + words[1:]


def lower_first(text: str) -> str:
    """Begin in lower case, as within a sentence; CO2 stays what it is."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def rounded_to(value: float, half_width: float) -> str:
    """Write a number with no more digits than its interval bears: 72 for 72.31 ± 9.

    Source: the rounding rule of the Particle Data Group (Review of Particle Physics, 5.3): keep
    two digits of the half width up to 35, one above, and cut the value at the same place.
    """
    if not (half_width > 0 and math.isfinite(value)):
        return f"{value:g}"
    places = min(math.ceil(math.log10(LARGEST_PAIR / half_width)), 12)
    return f"{round(value, places) + 0.0:,.{max(places, 0)}f}"


def figure(value: float) -> str:
    """Write a score with three digits: 0.877, 14.6, 12,300."""
    return rounded_to(value, abs(value) * LARGEST_PAIR / 100)


def percent(share: float) -> str:
    """Write a share in percent; what is little is told from nothing, and most from all."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return f"{min(max(100 * share, 0.1), 99.9):.1f}{NO_BREAK}%"
    return f"{100 * share:.0f}{NO_BREAK}%"


def ago(moment: datetime) -> str:
    """Say how long ago something was, in its largest whole unit."""
    seconds = max((datetime.now(UTC) - moment).total_seconds(), 0)
    for unit, length_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if n := int(seconds // length_s):
            return f"{n:,} {unit}{'s' if n > 1 else ''} ago"
    return "just now"


def times(level: float) -> str:
    """Put a probability into words that need no percent: 9 times in 10."""
    share = Fraction(level).limit_denominator(1000)
    return f"{share.numerator} times in {share.denominator}"


def example_of(media: dict[str, Any], openapi: dict[str, Any]) -> Any:
    """Give the example of a media type in an OpenAPI description: its own, or its schema's."""
    if "example" in media:
        return media["example"]
    schema = media.get("schema", {})
    schema = schema.get("oneOf", [schema])[0]
    if "$ref" in schema:
        schema = openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema.get("examples", [{}])[0]


def pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def shell(text: str) -> str:
    """Quote text for a shell, even where it has no need of it: people will edit it."""
    quoted = shlex.quote(text)
    return quoted if quoted != text else f"'{text}'"
