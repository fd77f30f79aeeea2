"""Tell of drift in words, in figures and as a table."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from contract.drift_limits import Action
from contract.findings import Comparison, Finding
from contract.profile import ACCEPT, Profile

N_TOLD = 20  # findings that a message lists
N_NEAREST = 50  # measures that table and report list
DECIMALS = 6
COLUMNS = ["what", "value", "warn", "fail", "of_limit", "action", "detail"]


@dataclass(frozen=True)
class Drifted:
    """What was compared; nothing but a status where there was nothing to compare with."""

    status: str
    reference: Profile | None = None
    current: Profile | None = None
    comparison: Comparison | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be compared, in sentences."""
        return self.comparison.notes if self.comparison else ()

    def findings(self, *actions: Action) -> list[Finding]:
        return self.comparison.findings(*actions) if self.comparison else []


def drift_in_words(drift: Drifted, action: Action) -> list[str]:
    """List what exceeds a limit; where that stops the run, with the two ways on."""
    findings = drift.findings(action)
    if not findings or not drift.comparison:
        return []
    n_then, n_now = drift.comparison.n_reference_rows, drift.comparison.n_rows
    rows = f"({n_then} rows accepted, {n_now} compared)"
    lines = [
        f"has drifted from the reference {rows}."
        if action == "fail"
        else f"Near to drift, or too few rows to say {rows}:",
        *(f"  {_line(found)}" for found in findings[:N_TOLD]),
    ]
    if len(findings) > N_TOLD:
        lines.append(f"... and {len(findings) - N_TOLD} more")
    if action == "fail":
        lines.append(
            "Correct the data; or, if the world has changed, accept it as the new reference: "
            f"{ACCEPT}. The limits are in params.yaml under drift; metrics/drift.json has all "
            "figures, metrics/drift/ the pictures."
        )
    return lines


def _line(found: Finding) -> str:
    measure = found.measure.replace("_", " ")
    return f"{found.subject}: {measure} {found.value:.3g}, limit {found.limit:.3g} ({found.detail})"


def sum_up_drift(drift: Drifted) -> dict[str, Any]:
    """Collect all figures of columns, and those of the pairs that are nearest to their limits."""
    compared = drift.comparison
    if compared is None:
        return {"status": drift.status}
    of_columns = [found for found in compared.measured if len(found.columns) == 1]
    of_pairs = [found for found in _nearest(compared) if len(found.columns) == 2]
    return {
        "status": drift.status,
        "n_reference_rows": compared.n_reference_rows,
        "n_rows": compared.n_rows,
        "n_fail": len(drift.findings("fail")),
        "n_warn": len(drift.findings("warn")),
        "findings": [
            {
                "columns": list(found.columns),
                "measure": found.measure,
                "value": round(found.value, DECIMALS),
                "limit": found.limit,
                "action": found.action,
                "detail": found.detail,
            }
            for found in drift.findings()
        ],
        "not_compared": list(compared.notes),
        "columns": _by_subject(of_columns, compared.p_values),
        "pairs": _by_subject(of_pairs, {}),
    }


def _by_subject(measured: list[Finding], p_values: dict[str, dict]) -> dict[str, dict[str, float]]:
    told: dict[str, dict[str, float]] = {}
    for found in measured:
        told.setdefault(found.subject, {})[found.measure] = round(found.value, DECIMALS)
    for name, values in p_values.items():
        told[name] |= {key: round(value, DECIMALS) for key, value in values.items()}
    return told


def nearest_to_limits(drift: Drifted) -> pd.DataFrame:
    """Give the measures that are nearest to a limit or beyond it, the furthest first."""
    rows = [
        {
            "what": f"{found.subject}: {found.measure.replace('_', ' ')}",
            "value": round(found.value, DECIMALS),
            **{action: round(limit, DECIMALS) for action, limit in found.limits.items()},
            "of_limit": round(_of_limit(found), 3),
            "action": found.action or "",
            "detail": found.detail,
        }
        for found in (_nearest(drift.comparison) if drift.comparison else [])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _nearest(comparison: Comparison) -> list[Finding]:
    limited = [found for found in comparison.measured if found.limits]
    return sorted(limited, key=_of_limit, reverse=True)[:N_NEAREST]


def _of_limit(found: Finding) -> float:
    """Give the value as a part of the limit that fails, or that warns where none fails."""
    limit = max(found.limits.values())
    return abs(found.value) / limit if limit else float(found.value != 0)
