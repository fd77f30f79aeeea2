"""Figures for people and git: small JSON, rounded to what is meaningful."""

import json
import math
from pathlib import Path
from typing import Any

SIGNIFICANT_DIGITS = 5  # enough to compare models, too few to show another processor's last bits


def rounded(value: Any) -> Any:
    """Round every float in nested dicts and lists; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    return value


def write_figures(
    path: Path, measured: dict[str, Any], given: dict[str, Any] | None = None
) -> None:
    """Write what was measured, rounded, below what was given, such as hyperparameters, exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps((given or {}) | rounded(measured), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")


def read_figures(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))
