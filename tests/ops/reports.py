"""Reports of the monitor, as small as a test needs them."""

from datetime import UTC, datetime

from contract.monitoring import LiveError, Report, Spread, Told

MADE = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
AREA = Told(
    subject="area",
    measure="difference_of_means",
    value=1.25,
    limit=0.25,
    action="fail",
    detail="mean 70 -> 95",
)
HEATING = Told(
    subject="heating",
    measure="unseen_share",
    value=0.1,
    limit=0.01,
    action="fail",
    detail="<!channel> @all `solar`\nwood",
)
WORSE = LiveError(
    score="r2_score",
    n_rows=500,
    value=0.61,
    low=0.55,
    high=0.66,
    promised=0.85,
    promised_low=0.8,
    promised_high=0.9,
    is_worse=True,
)


def make_report(*findings: Told, n_values: int = 500, **changes) -> Report:
    """Give a report that has found this, of columns that have so many values."""
    error = changes.get("live_error")
    drifted = any(found.action == "fail" for found in findings) or (error and error.is_worse)
    facts = {
        "made": MADE,
        "log": "logs/predictions.db",
        "since": None,
        "until": None,
        "n_rows": 500,
        "model": "0a1b2c3d4e5f",
        "status": "drifted" if drifted else "calm",
        "summary": "A sentence about it.",
        "versions": (),
        "findings": findings,
        "notes": (),
        "columns": [_spread(name, n_values) for name in ("area", "rooms", "heating")],
        "prediction": None,
        "by_hour": (),
        "n_rejected": 0,
        "rejected": (),
        "edges": (),
        "live_error": None,
    }
    return Report.model_validate(facts | changes)


def _spread(name: str, n_values: int) -> Spread:
    return Spread(
        name=name,
        kind="numeric",
        n_values=n_values,
        n_gaps=0,
        labels=("0 to 1", "1 to 2"),
        then=(0.5, 0.5),
        now=(0.25, 0.75),
    )
