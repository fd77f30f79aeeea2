"""Read the prediction log, from its local file or PostgreSQL, in batches that fit any memory."""

import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from contract.features import Contract
from contract.predictions import file
from contract.predictions.feature_columns import FEATURES
from contract.predictions.file import LogError
from contract.predictions.privacy import HASHED
from contract.predictions.settings import LogSettings

TIME = pa.timestamp("ms", "UTC")
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("time", TIME),
        pa.field("model", pa.string()),
        pa.field("source", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field(FEATURES, pa.string()),  # a JSON object
        pa.field("prediction", pa.float64()),
        pa.field("lower", pa.float64()),
        pa.field("upper", pa.float64()),
        pa.field("latency_ms", pa.float64()),
        pa.field("truth", pa.float64()),  # null until it is known
    ]
)
REJECTIONS_SCHEMA = pa.schema(
    [
        pa.field("time", TIME),
        pa.field("source", pa.string()),
        pa.field("field", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("count", pa.int64()),
    ]
)
# Both databases understand these, once the words in braces are those of their own.
ROWS = """SELECT CAST(p.id AS text), {time}, p.model, p.source, p.request_id,
    CAST(p.features AS text), p.prediction, p.lower, p.upper, p.latency_ms, t.truth, {place}
    FROM predictions p LEFT JOIN {truths} t ON t.id = p.id WHERE {in_window} """
ROWS_IN_ORDER = ROWS + "ORDER BY {in_order}"
REJECTIONS = """SELECT {time}, p.source, p.field, p.rule, p.count FROM {rejections} p
    WHERE {in_time} AND p.count > 0 ORDER BY p.time, p.id"""
CONTRACTS = "SELECT p.version, CAST(p.contract AS text) FROM {models} p ORDER BY {oldest_first}"
ROWS_A_BATCH = 20_000  # of some 12 MiB as Python has them; more are no faster
BUSY_MS = 5_000  # how long a writer that keeps readers out is waited for


@dataclass(frozen=True)
class Window:
    """Which predictions to read; times know their time zone."""

    since: datetime | None = None  # is in the window
    until: datetime | None = None  # is not
    last: int | None = None  # only the newest so many of these

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise ValueError(f"last is {self.last}, expected 1 or more")


EVERYTHING = Window()


class Reader(ABC):
    """A prediction log that can be read while others write it."""

    name: str  # where it is, for people

    @abstractmethod
    def batches(
        self, window: Window = EVERYTHING, rows_a_batch: int = ROWS_A_BATCH
    ) -> Iterator[pa.RecordBatch]:
        """Give predictions with their truths, oldest first, as batches of SCHEMA."""

    @abstractmethod
    def ask(self, query: str, window: Window = EVERYTHING, **values: Any) -> list[tuple]:
        """Answer a query in words for both databases, as those above are."""

    @abstractmethod
    def n_bytes(self) -> int:
        """Measure the room that the log takes on its disk."""

    def newest(self, n_rows: int) -> pa.RecordBatch:
        """Give the newest predictions, which are few, as `batches` does."""
        return as_batch(self.ask(ROWS_IN_ORDER, Window(last=n_rows)), SCHEMA)

    def rejections(self, window: Window = EVERYTHING) -> pa.Table:
        """Count refused values, by the time they came, field and rule."""
        return pa.Table.from_batches([as_batch(self.ask(REJECTIONS, window), REJECTIONS_SCHEMA)])

    def contracts(self) -> dict[str, Contract]:
        """Give the contract of each version that ever logged, oldest first."""
        return {version: self._contract(version, text) for version, text in self.ask(CONTRACTS)}

    def _contract(self, version: str, text: str) -> Contract:
        try:
            return Contract.model_validate_json(text)
        except ValidationError as error:
            raise LogError(
                f"{self.name}: the contract of model {version} cannot be read, "
                f"{error.errors()[0]['msg']}. Was it logged by a later release? Then use that one."
            ) from error

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""


def open_log_for_reading(settings: LogSettings, local: bool = False) -> Reader:
    """Open the database if one is set, else or if `local` the file; raises LogError if neither."""
    if settings.database is not None and not local:
        # here, as it imports this module
        from contract.predictions.read_database import DatabaseReader

        return DatabaseReader(settings.database)
    if settings.log_path is None:
        raise LogError("PREDICTION_LOG is off, so there is nothing to read. Set it to a path.")
    return FileReader(settings.log_path)


class FileReader(Reader):
    """Reads the local file, in short transactions, so that its WAL can be begun anew meanwhile."""

    WORDS: Mapping[str, str] = {
        "time": "p.time",
        "hour": "substr(p.time, 1, 13)",
        "place": "p.seq",
        "in_order": "p.seq",
        "oldest_first": "p.seq",
        "in_time": "p.time >= %(since)s AND p.time < %(until)s",
        "in_window": "p.time >= %(since)s AND p.time < %(until)s AND p.seq >= %(first)s",
        "is_hashed": f"instr(p.features, '\"{HASHED}')",
        "has_a_gap": "instr(p.features, 'null') AND json_valid(p.features)",
        "each_feature": "json_each(p.features)",
        "each_id": "SELECT value FROM json_each(%(ids)s)",
        "is_gap": "f.type = 'null'",
        "truths": "truths",
        "rejections": "rejections",
        "models": "models",
    }
    # of the newest so many
    FIRST = """SELECT min(seq), min(time) FROM (SELECT p.seq, p.time FROM predictions p
        WHERE {in_time} ORDER BY p.seq DESC LIMIT %(last)s)"""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        with self._connected():  # fails now rather than later
            pass

    def close(self) -> None:
        pass  # none is kept

    def n_bytes(self) -> int:
        files = [Path(f"{self.path}{suffix}") for suffix in ("", "-wal")]
        return sum(each.stat().st_size for each in files if each.exists())

    def batches(
        self, window: Window = EVERYTHING, rows_a_batch: int = ROWS_A_BATCH
    ) -> Iterator[pa.RecordBatch]:
        # `first` moves on: of two lower bounds, SQLite might begin each page at the lesser one
        page = ROWS + "AND p.seq <= %(newest)s ORDER BY p.seq LIMIT %(n)s"
        with self._connected() as connection:
            bounds = self._bounds(connection, window)
            (newest,) = connection.execute("SELECT max(seq) FROM predictions").fetchone()
            bounds |= {"newest": newest, "n": rows_a_batch}
            while rows := connection.execute(self._in_dialect(page), bounds).fetchall():
                bounds["first"] = rows[-1][-1] + 1
                yield as_batch(rows, SCHEMA)

    def ask(self, query: str, window: Window = EVERYTHING, **values: Any) -> list[tuple]:
        with self._connected() as connection:
            bounds = self._bounds(connection, window)
            return connection.execute(self._in_dialect(query), bounds | values).fetchall()

    def _bounds(self, connection: sqlite3.Connection, window: Window) -> dict[str, Any]:
        since = file.as_logged(window.since) if window.since else ""
        until = file.as_logged(window.until) if window.until else "~"
        bounds = {"since": since, "until": until, "last": window.last, "first": 0}
        if window.last is not None:
            first, time = connection.execute(self._in_dialect(self.FIRST), bounds).fetchone()
            bounds |= {"first": first or 0, "since": time or since}
        return bounds

    def _in_dialect(self, query: str) -> str:
        return re.sub(r"%\((\w+)\)s", r":\1", query.format(**self.WORDS))

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise LogError(
                f"{self.path} does not exist, or is no file: there is no prediction log. "
                "Set PREDICTION_LOG to the path that the server logs to."
            )
        try:
            with closing(file.connect(self.path, read_only=True)) as connection:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
                if self._is_begun(connection):
                    yield connection
                else:
                    with closing(_empty_log()) as empty:
                        yield empty
        except sqlite3.Error as error:
            raise LogError(f"{self.path}: {error}. {file.advice_on(error)}") from error

    def _is_begun(self, connection: sqlite3.Connection) -> bool:
        """Say whether there are tables; raises LogError if they are those of another program."""
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        if application_id == file.APPLICATION_ID:
            return True
        master = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if tables := [name for (name,) in master]:
            raise LogError(
                f"{self.path}: this is a database of another program, with the tables "
                f"{', '.join(tables[:5])}. Set PREDICTION_LOG to the path that the server logs to."
            )
        return False


def as_batch(rows: Sequence[tuple], schema: pa.Schema) -> pa.RecordBatch:
    """Turn rows into columns; what a row holds beyond the schema is not for readers."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [
        _times(values) if field.type == TIME else pa.array(values, field.type)
        for field, values in zip(schema, columns, strict=False)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _times(values: Sequence[str] | Sequence[int]) -> pa.TimestampArray:
    """Take text as it is logged, or milliseconds."""
    return pa.array(values).cast(TIME) if values else pa.array([], TIME)


def _empty_log() -> sqlite3.Connection:
    """Stand in for a file that a server is about to make its tables in."""
    connection = sqlite3.connect(":memory:")
    file.make_tables(connection)
    return connection
