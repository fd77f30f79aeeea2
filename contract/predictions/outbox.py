"""The log's side of its delivery: which rows wait, how far a target has them, and what may leave.

The log is the queue: a row waits while its `seq` is above what `deliveries` tells of its table.
Workers append meanwhile and never wait for who reads; what is written here is written in moments.
"""

import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from contract.predictions.damage import NOT_KNOWN, Files, files_at, is_cut, set_aside
from contract.predictions.file import (
    APPLICATION_ID,
    LogError,
    advice_on,
    checkpoint,
    code_of,
    connect,
    drop_ballast,
    is_damaged,
    lay_ballast,
    now,
    when_free,
)
from contract.predictions.pruning import ALL, first_id, prune, writing
from contract.predictions.tables import COLUMNS

TABLES = ("models", "predictions", "rejections", "truths")  # in the order of their delivery
NEEDS_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}

logger = logging.getLogger(__name__)


class Lag(NamedTuple):
    """What a target has not yet got; None where that cannot be known."""

    n_rows: int | None
    oldest_s: float | None  # how long the oldest of them has waited


NOTHING, UNKNOWN = Lag(0, 0.0), Lag(None, None)


class Outbox:
    """What one target still has to get of the log at a path; for one thread.

    There may be no log yet, and another file may take its place, which then is read from its start.
    Without a target all rows count as delivered, for those who only prune.
    """

    def __init__(self, path: Path, target: str | None) -> None:
        self.path = path
        self._target = target
        self._connection: sqlite3.Connection | None = None
        self._files: Files | None = None  # those that are open, or could not be
        self._version = -1  # of the data, as has_news saw it last
        self._cursors: dict[str, int] = {}
        self._is_saved = True

    def has_news(self) -> bool:
        """Say whether anybody has committed since this was asked last; cheap."""
        with self._log() as log:
            if log is None:
                return False
            (version,) = log.execute("PRAGMA data_version").fetchone()
            was, self._version = self._version, version
            return version != was

    def next_rows(self, table: str, limit: int) -> list[tuple]:
        """Give (seq, *COLUMNS[table]) of the first rows that wait, in the order of commits."""
        query = f"SELECT seq, {', '.join(COLUMNS[table])} FROM {table} "  # noqa: S608
        with self._log() as log:
            if log is None:
                return []
            where = "WHERE seq > ? ORDER BY seq LIMIT ?"
            return log.execute(query + where, (self._cursors.get(table, 0), limit)).fetchall()

    def delivered(self, table: str, seq: int) -> None:
        """Note that the target has all rows up to this one; `save` writes it down."""
        self._cursors[table] = seq
        self._is_saved = False

    def save(self) -> None:
        """Write down what was delivered, if the log from which it came is still in its place.

        Where that fails, it is remembered while this log is open, and else delivered again.
        """
        if self._is_saved:
            return
        with self._log(reopen=False) as log:
            if log is not None:
                with writing(log):
                    self._write_cursors(log)
        self._is_saved = True

    def set_apart(self, table: str, seq: int, error: str) -> None:
        """Keep a row that the target cannot take, and go on behind it."""
        self.delivered(table, seq)
        row = (self._target, table, seq, error)
        with self._log(reopen=False) as log:
            if log is not None:
                with writing(log):
                    log.execute("INSERT OR REPLACE INTO undeliverable VALUES (?, ?, ?, ?)", row)
                    self._write_cursors(log)

    def say(self, problem: str) -> bool:
        """Tell those who ask what keeps rows waiting, '' for nothing; False if there is no log."""
        row = (self._target, now(), problem)
        with self._log() as log:
            if log is None:
                return False
            with writing(log):
                log.execute("INSERT OR REPLACE INTO delivery_state VALUES (?, ?, ?)", row)
        return True

    def lag(self) -> Lag:
        """Give how many rows wait; cheap, however many there are."""
        with self._log() as log:
            return NOTHING if log is None else _lag(log, self._cursors)

    def prune(self, keep_days: float, limit: int = ALL) -> int:
        """Delete delivered rows older than so many days, at most `limit`; give how many.

        The newest row of a table stays, so that no `seq` is given twice; so do undeliverable ones.
        The disk gets its space back. It goes in steps so short that appends hardly notice, and
        works on a full disk, too, for which the ballast makes room.
        """
        before, n_rows = first_id(time.time() - keep_days * 86_400), 0
        try:
            while True:
                try:
                    for n in self._prune(before, limit - n_rows):
                        n_rows += n
                    return n_rows
                except LogError as error:
                    if not (code_of(error.__cause__) in NEEDS_ROOM and drop_ballast(self.path)):
                        raise
                    logger.warning("%s: the ballast makes room to prune a full disk", self.path)
        finally:
            if self.path.exists():
                lay_ballast(self.path)

    def close(self) -> None:
        self._version, self._cursors, self._is_saved = -1, {}, True
        if self._connection:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _log(self, *, reopen: bool = True) -> Iterator[sqlite3.Connection | None]:
        """Give the log at the path; None if there is none, or another than was open.

        After a failure it is opened anew, unless it only is full or busy, so that what was
        delivered is remembered. A file that was moved is let go at once: its successor may have
        got the index of its WAL, in which we would write. One that is damaged is set aside; the
        next append begins another.
        """
        try:
            if self._connection and not self._is_whole():
                self.close()
            if reopen and self._connection is None:
                self._open()
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            self._keep_if_damaged(error)
            if code_of(error) not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}:
                self.close()
            why = f"{self.path}: it can be neither delivered nor pruned, {error}."
            raise LogError(f"{why} {advice_on(error)}") from error

    def _open(self) -> None:
        found = files_at(str(self.path))
        if found is None:
            return
        self._files = found._replace(n_bytes=NOT_KNOWN)
        connection = connect(self.path)
        try:
            if not _is_log(connection):
                connection.close()
                return
            connection.execute("PRAGMA synchronous = NORMAL")  # no wait for the disk
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # workers see to it
            connection.execute("PRAGMA secure_delete = FAST")  # freed pages leave the file anyway
            self._cursors = _cursors(connection, self._target)
        except BaseException:
            connection.close()
            raise
        self._connection, self._files = connection, found

    def _is_whole(self) -> bool:
        """Say whether the file at the path is the one that is open; sets it aside if it was cut."""
        ours, found = self._files, files_at(str(self.path))
        if found is None or found[:2] != ours[:2]:
            return False
        if found.n_bytes < ours.n_bytes:
            with writing(self._connection):
                if is_cut(self._connection, self.path, found.n_bytes):
                    set_aside(self.path, found.main)
                    return False
        self._files = found
        return True

    def _keep_if_damaged(self, error: BaseException) -> None:
        """Set a damaged file aside, while nobody writes, if SQLite still knows how to see to it."""
        is_ours = self._files is not None and self._files.n_bytes != NOT_KNOWN
        if self._files is None or not is_damaged(self.path, error, is_ours=is_ours):
            return
        with suppress(sqlite3.Error):
            if self._connection:
                when_free(self._connection, "BEGIN IMMEDIATE")
        set_aside(self.path, self._files.main)

    def _write_cursors(self, log: sqlite3.Connection) -> None:
        rows = [(self._target, *each) for each in self._cursors.items()]
        log.executemany("INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?)", rows)

    def _prune(self, before: str, limit: int) -> Iterator[int]:
        with self._log() as log:
            if log is not None:
                delivered, n_rows = None if self._target is None else self._cursors, 0
                for n in prune(log, delivered, before, limit):
                    n_rows += n
                    yield n
                if n_rows:
                    checkpoint(self.path, "PASSIVE")  # which cuts the file


def lag_of(path: Path, target: str) -> tuple[Lag, str]:
    """Give how far a target is behind, and why, '' if nothing is wrong; waits for nobody.

    Of a log that cannot be read, or was emptied, nobody knows.
    """
    if not path.exists():
        is_left = Path(f"{path}-wal").exists()
        return (UNKNOWN, f"{path} is missing, only its WAL is left.") if is_left else (NOTHING, "")
    try:
        with closing(connect(path, read_only=True)) as log:
            if not _is_log(log):
                return NOTHING, ""
            query = "SELECT problem FROM delivery_state WHERE target = ?"
            problem = log.execute(query, (target,)).fetchone() or ("",)
            return _lag(log, _cursors(log, target)), problem[0]
    except sqlite3.Error as error:
        return UNKNOWN, f"{path}: what waits to be delivered cannot be read, {error}."


def _lag(log: sqlite3.Connection, cursors: Mapping[str, int]) -> Lag:
    n_rows, oldest_s = 0, 0.0
    for table in TABLES:
        query = f"SELECT seq, time FROM {table} WHERE seq > ? ORDER BY seq LIMIT 1"  # noqa: S608
        first = log.execute(query, (cursors.get(table, 0),)).fetchone()
        if first:
            n_rows += _n_from(log, table, first[0])
            age = datetime.now(UTC) - datetime.fromisoformat(first[1])
            oldest_s = max(oldest_s, age.total_seconds())
    return Lag(n_rows, oldest_s)


def _n_from(log: sqlite3.Connection, table: str, first: int) -> int:
    """Count the rows from one on; those of truths alone leave gaps, where another took a place."""
    count = "count(*)" if table == "truths" else "max(seq) - ? + 1"
    query = f"SELECT {count} FROM {table} WHERE seq >= ?"  # noqa: S608
    return log.execute(query, (first,) * query.count("?")).fetchone()[0]


def _cursors(log: sqlite3.Connection, target: str | None) -> dict[str, int]:
    query = "SELECT table_name, seq FROM deliveries WHERE target = ?"
    return dict(log.execute(query, (target,)).fetchall())


def _is_log(connection: sqlite3.Connection) -> bool:
    """Say whether this is a log, with its tables; another process may be about to make them."""
    when_free(connection, "PRAGMA application_id")
    return connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
