"""The SQLite file of the prediction log: its tables, and how to get at it beside others."""

import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import ContractError
from contract.predictions.damage import files_at, is_emptied, make_file

MAGIC = b"SQLite format 3\0"  # with which each file of SQLite begins
APPLICATION_ID = 0x50726564  # in the file's header, by which we know our own
# Times are ISO 8601 text in UTC: they sort, people read them, the date functions of SQLite and
# PostgreSQL take them, and `time >= '2026-11'` needs no conversion. An id begins with its time, so
# the index that keeps ids unique also serves ranges of time. `seq` is the order of commits; the
# newest row of a table is never deleted, so that none is given twice.
TABLES = {
    "predictions": """
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time TEXT NOT NULL, model TEXT NOT NULL,
        source TEXT NOT NULL, request_id TEXT NOT NULL, features TEXT NOT NULL,
        prediction REAL, lower REAL, upper REAL, latency_ms REAL NOT NULL""",
    "rejections": """
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time TEXT NOT NULL, source TEXT NOT NULL,
        field TEXT NOT NULL, rule TEXT NOT NULL, count INTEGER NOT NULL""",
    "models": """
        seq INTEGER PRIMARY KEY, version TEXT NOT NULL UNIQUE, time TEXT NOT NULL,
        contract TEXT NOT NULL""",
    "truths": """
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time TEXT NOT NULL,
        truth REAL NOT NULL""",
    "deliveries": """
        target TEXT NOT NULL, table_name TEXT NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (target, table_name)""",
    "undeliverable": """
        target TEXT NOT NULL, table_name TEXT NOT NULL, seq INTEGER NOT NULL, error TEXT NOT NULL,
        PRIMARY KEY (target, table_name, seq)""",
    "delivery_state": """
        target TEXT PRIMARY KEY, time TEXT NOT NULL, problem TEXT NOT NULL""",
}
LONGEST_WAL_BYTES = 64 * 2**20  # that is kept for the next rows, once it was copied
BALLAST_BYTES = 4 * 2**20  # SQLite needs room even to delete; more than PRUNE_ROWS take
SPARE_BYTES = 2**18  # that are left to rows when it is laid
BUSY_S = 5.0  # how long another program may hold the file before an append fails
COPY_S = 1.0  # how long readers may keep a WAL without a name from being copied
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.0001, 0.002  # between two tries to get at the file
BAD_VALUE = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)
DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
ADVICE = {
    sqlite3.SQLITE_BUSY: f"Another program has held the file for {BUSY_S:.0f} s: end it.",
    sqlite3.SQLITE_FULL: "Free some space; the log then goes on by itself.",
    sqlite3.SQLITE_IOERR: "Free some space or mend the disk; the log then goes on by itself.",
    sqlite3.SQLITE_CORRUPT: "The file is damaged: a server sets it aside and begins a new one.",
    sqlite3.SQLITE_NOTADB: "Name another path, or move the file aside, and a new one is begun.",
}

logger = logging.getLogger(__name__)


class LogError(ContractError):
    """Rows could not be written; none of their append is in the log."""


@dataclass(eq=False)  # hence quick to look up by
class Table:
    name: str
    shared: tuple[str, ...]  # columns that hold one value in all rows of an append
    own: tuple[str, ...]


PREDICTIONS = Table(
    "predictions",
    shared=("time", "model", "source", "request_id", "latency_ms"),
    own=("id", "features", "prediction", "lower", "upper"),
)
MODELS = Table("models", shared=("time",), own=("version", "contract"))
REJECTIONS = Table("rejections", shared=("time", "source"), own=("id", "field", "rule", "count"))


def is_damaged(path: Path, error: BaseException, *, is_ours: bool = False) -> bool:
    """Say whether an error of SQLite means that a log has lost a part.

    Whoever has not used it as a log before looks whether it is one of ours.
    """
    code = getattr(error, "sqlite_errorcode", 0)
    if code_of(error) not in DAMAGE and code != sqlite3.SQLITE_IOERR_SHORT_READ:  # of a WAL
        return False
    if is_ours or is_emptied(files_at(str(path))):
        return True
    with path.open("rb") as file:
        header = file.read(72)
    if len(header) < 72:  # too short for any database, whoever began it
        return header.startswith(MAGIC)
    return header[68:] == APPLICATION_ID.to_bytes(4, "big")


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Connect to a file that exists; a statement that finds it busy fails at once."""
    if is_emptied(files_at(str(path))):
        error = sqlite3.DatabaseError("the file is empty, and only its WAL is left")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    return sqlite3.connect(uri, timeout=0, isolation_level=None, check_same_thread=False, uri=True)


def open_log(path: Path, sync_full: bool) -> sqlite3.Connection:
    """Open the log for writing; it is made where there is none."""
    make_file(path)
    lay_ballast(path)
    connection = connect(path)
    try:
        if path.stat().st_size == 0:
            when_free(connection, "PRAGMA auto_vacuum = INCREMENTAL")  # pruning frees the disk
        if not {*TABLES} <= _tables_in(connection, path):  # else others need not wait for us
            when_free(connection, "BEGIN IMMEDIATE")
            _prepare(connection, path)
            when_free(connection, "COMMIT")
        when_free(connection, "PRAGMA journal_mode = WAL")
        when_free(connection, f"PRAGMA synchronous = {'FULL' if sync_full else 'NORMAL'}")
        when_free(connection, "PRAGMA wal_autocheckpoint = 0")  # see copying
        when_free(connection, f"PRAGMA journal_size_limit = {LONGEST_WAL_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def _tables_in(connection: sqlite3.Connection, path: Path) -> set[str]:
    """Name the tables there are; raises LogError if it is the file of another program."""
    master = when_free(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = [name for (name,) in master]
    (application_id,) = when_free(connection, "PRAGMA application_id").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise LogError(
            f"{path}: nothing was logged, this is a database of another program, with the tables "
            f"{', '.join(tables[:5])}. Name another path."
        )
    return {*tables}


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not _tables_in(connection, path):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    make_tables(connection)


def make_tables(connection: sqlite3.Connection) -> None:
    """Make our tables in a new file, or those that an older one lacks."""
    for name, columns in TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")


def lay_ballast(path: Path) -> None:
    """Keep some room on the disk, which pruning gives up once there is none."""
    ballast = _ballast(path)
    if ballast.exists():
        return
    try:
        disk = os.statvfs(path.parent)
        if disk.f_bavail * disk.f_frsize < BALLAST_BYTES + SPARE_BYTES:
            return
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
    except OSError:  # the disk is full already
        ballast.unlink(missing_ok=True)


def drop_ballast(path: Path) -> bool:
    """Give the room up; False if there was none."""
    had_some = _ballast(path).exists()
    _ballast(path).unlink(missing_ok=True)
    return had_some


def _ballast(path: Path) -> Path:
    return Path(f"{path}-ballast")


def when_free(connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    """Execute a statement as soon as no other process is in the way.

    SQLite's own pauses grow to 0.1 s and miss the short gaps between the chunks of a batch: beside
    one without end, an append waited up to 0.8 s for them, and 0.05 s for these.
    """
    give_up, pause = time.monotonic() + BUSY_S, FIRST_PAUSE_S
    while True:
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def checkpoint(path: Path, mode: str) -> int:
    """Copy the WAL into the file as far as the mode allows; return how many pages it holds."""
    try:
        with closing(connect(path)) as connection:
            _, n_pages, _ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    except sqlite3.Error as error:  # the rows are safe in the WAL; a later attempt may succeed
        logger.warning("%s: its WAL could not be copied into it, %s", path, error)
        return 0
    return n_pages


def copy_lost_wal(connection: sqlite3.Connection) -> None:
    """Copy a WAL that has lost its name, as far as this is possible: only who has it open can."""
    give_up = time.monotonic() + COPY_S
    with suppress(sqlite3.Error):  # what it holds was lost with its name
        is_busy = 1
        while is_busy and time.monotonic() < give_up:
            is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            time.sleep(FIRST_PAUSE_S)


def code_of(error: BaseException | None) -> int:
    """Give SQLite's code of an error, 0 if it is none of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the other bits are detail


def as_logged(moment: datetime) -> str:
    """Write a time as the log holds it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    return as_logged(datetime.now(UTC))


def advice_on(error: BaseException) -> str:
    """Say what to do about an error of SQLite."""
    if isinstance(error, BAD_VALUE):
        return "One of the values is not text or a number that SQLite can hold."
    return ADVICE.get(
        code_of(error), "Make the file and its folder writable, or name another path."
    )
