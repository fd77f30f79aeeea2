"""The report of the monitor: ops writes it, alerts follow from it, the server shows it."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from contract.errors import ContractError
from contract.features import Kind

REPORT = Path("logs/monitor.json")

Status = Literal["calm", "drifted", "too_few"]


class Part(BaseModel, frozen=True, extra="forbid"):
    """A part of the report."""


class Seen(Part, frozen=True):
    """The predictions of one version in the window."""

    version: str
    n_predictions: int
    first: datetime
    last: datetime


class Told(Part, frozen=True):
    """One effect size that is beyond its limit."""

    subject: str  # a column, a pair of columns, or the prediction
    measure: str
    value: float
    limit: float
    action: Literal["warn", "fail"]
    detail: str


class Spread(Part, frozen=True):
    """How the values of a column are spread, in the window and in the reference."""

    name: str
    kind: Kind
    n_values: int
    n_gaps: int
    labels: tuple[str, ...]  # bins such as "40 to 50", or categories; then those outside, if any
    then: tuple[float, ...]  # the share of each in the reference
    now: tuple[float, ...]
    mean_then: float | None = None  # numbers only
    mean_now: float | None = None


class Hour(Part, frozen=True):
    hour: datetime  # its beginning
    n_predictions: int
    n_rejected: int  # values
    gap_share: float  # of all features' values


class Rejected(Part, frozen=True):
    """Values refused for one reason; `field` is empty where the contract knows no such field."""

    field: str
    rule: str
    n_values: int


class Edge(Part, frozen=True):
    """A value near an end of its range."""

    id: str
    time: datetime
    column: str
    value: float
    end: float
    distance: float  # in standard deviations of the reference


class LiveError(Part, frozen=True):
    """The main score where the truth is known, against what the evaluation promised."""

    score: str
    n_rows: int
    value: float
    low: float  # of the interval with 95 % confidence
    high: float
    promised: float
    promised_low: float | None
    promised_high: float | None
    is_worse: bool  # the whole interval is on the bad side of the promised one


class Report(Part, frozen=True):
    """What was predicted in a window of the log, against what the model knows."""

    format: Literal[1] = 1
    made: datetime
    log: str  # where it was read
    since: datetime | None
    until: datetime | None
    n_rows: int
    model: str  # the version whose reference was taken
    status: Status
    summary: str  # in a sentence
    versions: tuple[Seen, ...]
    findings: tuple[Told, ...]  # the greatest excess first
    notes: tuple[str, ...]  # what could not be measured, in sentences
    columns: tuple[Spread, ...]
    prediction: Spread | None
    by_hour: tuple[Hour, ...]
    n_rejected: int
    rejected: tuple[Rejected, ...]
    edges: tuple[Edge, ...]  # the nearest first
    live_error: LiveError | None


def read_report(path: Path = REPORT) -> Report | None:
    """Read the last report, None if there is none; raises ContractError if it is damaged."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path} cannot be read, {error}. {_AGAIN}") from error
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        raise ContractError(
            f"{path} is no report of this release: {error.errors()[0]['msg']}. {_AGAIN}"
        ) from error


_AGAIN = "Make it anew: python -m ops.monitor"
