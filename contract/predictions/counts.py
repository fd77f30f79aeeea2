"""Count what a prediction log holds, for people, the monitor page and scripts."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from contract.predictions.damage import files_aside
from contract.predictions.file import LogError
from contract.predictions.outbox import lag_of
from contract.predictions.read import EVERYTHING, FileReader, Reader, Window, open_log_for_reading
from contract.predictions.settings import LogSettings

N_HOURS = 24
# As read.ROWS: the words in braces are those of either database.
GROUPS = """SELECT p.model, p.source, {hour}, count(*), min(p.time), max(p.time),
    count(p.prediction), min(p.prediction), sum(p.prediction), max(p.prediction),
    sum(CASE WHEN p.features = '{{}}' THEN 1 ELSE 0 END),
    sum(CASE WHEN {is_hashed} THEN 1 ELSE 0 END)
    FROM predictions p WHERE {in_window} GROUP BY 1, 2, 3 ORDER BY 5"""
LATENCIES = """SELECT min(CASE WHEN share >= 0.5 THEN latency_ms END),
    min(CASE WHEN share >= 0.95 THEN latency_ms END),
    min(CASE WHEN share >= 0.99 THEN latency_ms END)
    FROM (SELECT p.latency_ms, cume_dist() OVER (ORDER BY p.latency_ms) AS share
        FROM predictions p WHERE {in_window}) AS ordered"""
GAPS = """SELECT f.key, count(*) FROM predictions p, {each_feature} f
    WHERE {in_window} AND {has_a_gap} AND {is_gap} GROUP BY f.key ORDER BY f.key"""
TRUTHS = """SELECT count(*), avg(abs(p.prediction - t.truth))
    FROM {truths} t JOIN predictions p ON p.id = t.id WHERE {in_window}"""
UNDELIVERABLE = "SELECT count(*) FROM undeliverable WHERE target = %(target)s"
REJECTED = """SELECT p.field, p.rule, sum(p.count) FROM {rejections} p
    WHERE {in_time} AND p.count > 0 GROUP BY p.field, p.rule ORDER BY 3 DESC, 1, 2"""


class ModelCount(BaseModel, frozen=True):
    """The predictions of one version."""

    version: str
    n_predictions: int
    first: datetime
    last: datetime


class HourCount(BaseModel, frozen=True):
    hour: datetime  # its beginning
    n_predictions: int


class RejectedCount(BaseModel, frozen=True):
    """Values refused for one reason; `field` is empty where the contract knows no such field."""

    field: str
    rule: str
    n_values: int
    share: float  # of all that were refused


class Latency(BaseModel, frozen=True):
    """Until half, 95 % and 99 % of the predictions were there; a row of a table counts as one."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


class Range(BaseModel, frozen=True):
    min: float
    mean: float
    max: float


class Delivery(BaseModel, frozen=True):
    """How far the database is behind the local file."""

    target: str
    n_waiting: int | None  # rows of all tables; None where the file cannot be read
    oldest_s: float | None
    problem: str  # '' while all is well
    n_undeliverable: int


class Stats(BaseModel, frozen=True):
    """What a window of the log holds."""

    log: str  # where the log is that was counted
    n_bytes: int  # of all of it
    since: datetime | None
    n_predictions: int
    by_source: dict[str, int]
    by_model: list[ModelCount]  # oldest first
    by_hour: list[HourCount]  # the last 24, up to the present one
    n_rejected: int  # values
    rejected: list[RejectedCount]
    latency: Latency | None
    prediction: Range | None
    gaps: dict[str, int]  # by feature
    n_without_features: int  # rows of which no feature is stored, so that gaps do not show
    n_hashed: int  # rows in which features are hashed
    n_truths: int
    mean_absolute_error: float | None
    set_aside: list[str] = []  # files of the log that were damaged, and not recovered since
    delivery: Delivery | None = None  # to the database, if one is set


def stats(settings: LogSettings, window: Window = EVERYTHING, local: bool = False) -> Stats:
    """Count a window of the log; raises LogError or DatabaseError if it cannot be read."""
    with closing(open_log_for_reading(settings, local)) as reader:
        counted = count(reader, window)
    aside = files_aside(settings.log_path) if settings.log_path else []
    told = {"set_aside": [str(path) for path in aside], "delivery": delivery_of(settings)}
    return counted.model_copy(update=told)


def delivery_of(settings: LogSettings) -> Delivery | None:
    """Tell what the database has not yet got; None without database or local file."""
    path, database = settings.log_path, settings.database
    if database is None or path is None or not path.exists():
        return None
    lag, problem = lag_of(path, database.name)
    try:
        [(n_undeliverable,)] = FileReader(path).ask(UNDELIVERABLE, target=database.name)
    except LogError as error:  # which does not keep the database from being counted
        n_undeliverable, problem = 0, str(error)
    return Delivery(
        target=database.name,
        n_waiting=lag.n_rows,
        oldest_s=lag.oldest_s,
        problem=problem,
        n_undeliverable=n_undeliverable,
    )


def count(reader: Reader, window: Window = EVERYTHING) -> Stats:
    """Count what a reader finds in a window; the database does the work."""
    groups = reader.ask(GROUPS, window)
    n_predictions = sum(group[3] for group in groups)
    rejected = reader.ask(REJECTED, window)
    n_truths, error = reader.ask(TRUTHS, window)[0]
    return Stats(
        log=reader.name,
        n_bytes=reader.n_bytes(),
        since=window.since,
        n_predictions=n_predictions,
        by_source=_by_source(groups),
        by_model=_by_model(groups),
        by_hour=_by_hour(groups, window.until or datetime.now(UTC)),
        n_rejected=sum(int(row[2]) for row in rejected),
        rejected=_with_shares(rejected),
        latency=_latency(reader.ask(LATENCIES, window)[0]),
        prediction=_prediction(groups),
        gaps=dict(reader.ask(GAPS, window)),
        n_without_features=sum(group[10] for group in groups),
        n_hashed=sum(group[11] for group in groups),
        n_truths=n_truths,
        mean_absolute_error=error,
    )


def _by_source(groups: Sequence[tuple]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for _, source, _, n, *_ in groups:
        counts[source] += n
    return dict(sorted(counts.items()))


def _by_model(groups: Sequence[tuple]) -> list[ModelCount]:
    found: dict[str, ModelCount] = {}
    for version, _, _, n, first, last, *_ in groups:
        own = ModelCount(version=version, n_predictions=n, first=_utc(first), last=_utc(last))
        other = found.get(version, own.model_copy(update={"n_predictions": 0}))
        found[version] = ModelCount(
            version=version,
            n_predictions=own.n_predictions + other.n_predictions,
            first=min(own.first, other.first),
            last=max(own.last, other.last),
        )
    return sorted(found.values(), key=lambda model: model.first)


def _by_hour(groups: Sequence[tuple], end: datetime) -> list[HourCount]:
    counts: Counter[datetime] = Counter()
    for _, _, hour, n, *_ in groups:
        counts[_utc(hour)] += n
    last = end.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [last - timedelta(hours=ago) for ago in reversed(range(N_HOURS))]
    return [HourCount(hour=hour, n_predictions=counts[hour]) for hour in hours]


def _with_shares(rejected: Sequence[tuple]) -> list[RejectedCount]:
    total = sum(n for _, _, n in rejected)
    return [
        RejectedCount(field=field, rule=rule, n_values=n, share=n / total)
        for field, rule, n in rejected
    ]


def _latency(percentiles: tuple) -> Latency | None:
    p50, p95, p99 = percentiles
    return None if p50 is None else Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99)


def _prediction(groups: Sequence[tuple]) -> Range | None:
    """Sum up the predictions that are numbers."""
    numbers = [group[6:10] for group in groups if group[6]]
    if not numbers:
        return None
    n, lowest, total, highest = zip(*numbers, strict=True)
    return Range(min=min(lowest), mean=sum(total) / sum(n), max=max(highest))


def _utc(time: str | datetime) -> datetime:
    """Read a time of either database; the file's hours are text such as 2026-11-23T19."""
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
