"""The prediction log: what was answered is in a local SQLite file before the answer leaves.

The threads of a process share one connection. Who comes first writes, in one transaction for all
who have come by then; those who come meanwhile wait, and the first of them is the next to write.
In a bare trial on two free cores, that cost 24 us of processor an append alone and 39 with eight
threads, p99 0.6 ms; a writer thread behind a queue cost 70 and 35; a lock that all must pass, 24
and 46, p99 7 ms. With checkpoints and all, it is 32 and 31 to 55.

The order of rows in the file (`seq`) is the order of their commits, so a reader that remembers
the last one it saw misses none.
"""

import logging
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from uuid_utils import uuid7

from contract.artifact import Predictions
from contract.predictions.copying import Copying
from contract.predictions.damage import (
    NOT_KNOWN,
    Files,
    files_at,
    is_cut,
    make_file,
    set_aside,
)
from contract.predictions.file import (
    BAD_VALUE,
    MODELS,
    PREDICTIONS,
    REJECTIONS,
    LogError,
    advice_on,
    copy_lost_wal,
    is_damaged,
    lay_ballast,
    now,
    open_log,
    when_free,
)
from contract.predictions.outage import Outage
from contract.predictions.rows import Mark, Rows
from contract.predictions.wal import NOTHING_SEEN, pages_in

ROWS_A_COMMIT = 10_000  # some 20 ms, in which other processes wait
RECENT_S = 1.0  # rows that were logged so lately show that more can be
N_OPENINGS = 5  # of one append, for files that others move away

logger = logging.getLogger(__name__)


class PredictionLog:
    """Appends to one SQLite file, from many threads and processes at once.

    The file is opened at the first use, and anew after a failure and in each child of a fork.
    Rows outlive the process; with `sync_full` they outlive a power cut, too, and each commit waits
    for the disk.
    """

    def __init__(self, path: Path, *, sync_full: bool = False) -> None:
        self.path = path
        self._file = str(path)
        self._outage: Outage | None = None  # since when nothing could be written
        self._written_s = -math.inf  # when something was
        # may let another `write` the rows of an append; says True once they are written
        self.hand_over: Callable[[Rows], bool] = lambda rows: False
        self._sync_full = sync_full
        self._waiting: deque[Rows] = deque()  # its first is writing, or about to
        self._door = threading.Lock()  # held to look at those who wait
        self._pen = threading.Lock()  # held to touch all that follows
        self._connection: sqlite3.Connection | None = None
        self._files: Files | None = None  # those that are open
        self._seen = NOTHING_SEEN  # of their WAL
        self._contracts: dict[str, str] = {}  # by the version of the model
        self._n_described = 0  # of them are in the file
        self._copying = Copying(path)
        self._closed = False
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=lambda: self._pen.release(),
            after_in_child=self._after_fork_in_child,
        )

    def append(
        self,
        features: Sequence[str],
        told: Predictions,
        *,
        model: str,
        source: str,
        request_id: str,
        latency_ms: float,
    ) -> list[str]:
        """Log predictions, the features of each row as one JSON object; return the new ids.

        When this returns, all rows are committed; or none, and LogError says why. Other processes
        wait meanwhile, so a long table comes in chunks of at most ROWS_A_COMMIT.
        """
        ids = [str(uuid7()) for _ in features]
        numbers = (told.prediction.tolist(), told.lower.tolist(), told.upper.tolist())
        own = list(zip(ids, features, *numbers, strict=True))
        self._commit(Rows(PREDICTIONS, (now(), model, source, request_id, latency_ms), own))
        return ids

    def reject(self, source: str, counts: Mapping[tuple[str, str], int]) -> None:
        """Count refused values by field and rule; where that fails, it is only a warning."""
        own = [(str(uuid7()), *key, count) for key, count in counts.items()]
        is_known_to_fail = self._outage is not None
        try:
            self._commit(Rows(REJECTIONS, (now(), source), own))
        except LogError as error:
            if not is_known_to_fail:
                logger.warning("%d rejections are not counted: %s", sum(counts.values()), error)

    def is_writable(self) -> bool:
        """Say whether rows can be logged now; unless some just were, it is tried out."""
        if self._outage or time.monotonic() - self._written_s > RECENT_S:
            with suppress(LogError):
                self._commit(Mark(PREDICTIONS, (), []))
                lay_ballast(self.path)  # in case that a full disk has taken it
        return self._outage is None

    def look_ahead(self) -> None:
        """Look through the WAL that is there; of a long one it takes some 20 ms.

        It is for those who are to append soon, and otherwise would with their first, which also is
        told what is wrong with it.
        """
        with suppress(OSError):
            self._seen = pages_in(Path(f"{self.path}-wal"))

    def describe(self, version: str, contract: str) -> None:
        """Tell which contract, as JSON, the rows of a model follow; written with its first row."""
        self._contracts[version] = contract

    def close(self) -> None:
        """Let go of the file; appends that still wait, or come later, raise LogError."""
        with self._pen:
            self._closed = True
            self._let_go()

    def write(self, appends: Sequence[Rows]) -> None:
        """Commit the rows of several appends, with those of others; each then has its error."""
        with self._door:
            leads = not self._waiting
            for rows in appends:
                rows.turn.acquire()
                self._waiting.append(rows)
        try:
            for rows in appends:
                if not leads:
                    rows.turn.acquire()  # another has written them, or it is our turn to write
                leads = False
                if not rows.taken:
                    self._lead()
        finally:  # even if interrupted, or all would wait for us
            self._leave([rows for rows in appends if not rows.taken])

    def _commit(self, rows: Rows) -> None:
        if not self.hand_over(rows):
            self.write([rows])
        if rows.error:
            raise LogError(self._explain(rows.error)) from rows.error

    def _lead(self) -> None:
        """Write for all who have come by now."""
        group = self._take()
        try:
            with self._pen:
                self._write(group)
        finally:
            self._leave(group)

    def _take(self) -> list[Rows]:
        """Take from those who wait, us first, as many as make one short transaction."""
        group, n_rows = [], 0
        with self._door:
            for rows in self._waiting:
                n_rows += len(rows.own)
                if group and n_rows > ROWS_A_COMMIT:
                    break
                rows.taken, rows.error = True, InterruptedError("interrupted")  # until committed
                group.append(rows)
        return group

    def _leave(self, group: list[Rows]) -> None:
        """Let those go whose rows are done with, and call the next to write."""
        if not group:
            return
        with self._door:
            for rows in group:
                self._waiting.remove(rows)
            for rows in (*group, *islice(self._waiting, 1)):
                if rows.turn.locked():
                    rows.turn.release()

    def _write(self, group: list[Rows]) -> None:
        """Commit what a group holds, or leave in its rows why not."""
        try:
            self._transact(group)
        except BAD_VALUE as error:
            group[0].error = error
            if len(group) == 1:
                logger.error("%s", self._explain(error))
            else:  # the bad value of one must not cost the others their rows
                for rows in group:
                    self._write([rows])
        except (sqlite3.Error, OSError, LogError) as error:
            for rows in group:
                rows.error = error
            if not self._closed:
                self._outage = self._outage or Outage(self.path)
                self._outage.note(len(group), self._explain(error))
        else:
            for rows in group:
                rows.error = None
            self._written_s = time.monotonic()
            if self._outage:
                self._outage.end()
                self._outage = None
                lay_ballast(self.path)
            self._copying.plan(sum(len(rows.own) for rows in group), self._files)

    def _transact(self, group: list[Rows]) -> None:
        if not (self._insert_and_commit(group) or self._insert_and_commit(group)):
            why = "nothing was logged, a log just begun is damaged, too"
            raise LogError(f"{self.path}: {why}. Mend the disk, or name another path.")

    def _insert_and_commit(self, group: list[Rows]) -> bool:
        """Commit what a group holds; False if the file was damaged and is set aside."""
        is_done = False
        try:
            connection = self._begin()
            contracts = list(self._contracts.items())  # others may be told of during the commit
            if self._n_described < len(contracts):
                Rows(MODELS, (now(),), contracts).insert(connection)
            for rows in group:
                rows.insert(connection)
            connection.execute("COMMIT")
            self._n_described = len(contracts)
            is_done = True
        except sqlite3.DatabaseError as error:
            is_ours = self._files is not None and self._files.n_bytes != NOT_KNOWN
            if self._files is None or not is_damaged(self.path, error, is_ours=is_ours):
                raise
            set_aside(self.path, self._files.main)  # while nobody else can write
        finally:
            if not is_done:
                self._disconnect()  # which rolls back; the next append opens the file anew
        return is_done

    def _begin(self) -> sqlite3.Connection:
        """Begin a transaction in the file that is at the path, and whole."""
        if self._closed:
            raise LogError(f"{self.path}: nothing was logged, the log is closed.")
        for _ in range(N_OPENINGS):
            connection = self._connection or self._open()
            when_free(connection, "BEGIN IMMEDIATE")
            found = files_at(self._file)  # now, that nobody can set it aside before our COMMIT
            if found == self._files and not self._copying.has_lost_pages:
                return connection
            if found and self._is_whole(connection, found):
                self._files = found
                return connection
            self._disconnect()  # what goes into them now would be lost
        why = "nothing was logged, other files take its place all the time"
        raise LogError(f"{self.path}: {why}. End what moves them, or name another path.")

    def _open(self) -> sqlite3.Connection:
        self._copying.has_lost_pages = False
        self._files = make_file(self.path)._replace(wal=0, n_bytes=NOT_KNOWN)
        self._connection = open_log(self.path, self._sync_full)
        self._seen = pages_in(Path(f"{self.path}-wal"), self._seen)  # before others wait for us
        return self._connection

    def _is_whole(self, connection: sqlite3.Connection, found: Files) -> bool:
        """Say whether the files at the path are those that are open; sets them aside if damaged."""
        ours, n_bytes = self._files, found.n_bytes
        if found[:2] != ours[:2]:
            return False
        if ours.wal and found.wal != ours.wal:
            connection.execute("ROLLBACK")
            copy_lost_wal(connection)
        elif self._copying.has_lost_pages:
            pass
        elif n_bytes >= ours.n_bytes or not is_cut(connection, self.path, n_bytes, self._seen):
            return True
        set_aside(self.path, found.main)
        return False

    def _disconnect(self) -> None:
        self._files, self._seen, self._n_described = None, NOTHING_SEEN, 0
        if self._connection:
            self._connection.close()
            self._connection = None

    def _let_go(self) -> None:
        self._copying.wait()
        self._disconnect()

    def _before_fork(self) -> None:
        """Close the file: locks do not cross a fork, SQLite's memory of having them would."""
        self._pen.acquire()
        self._let_go()

    def _after_fork_in_child(self) -> None:
        self._waiting = deque()  # those who waited go on in the parent
        self._door, self._pen = threading.Lock(), threading.Lock()

    def _explain(self, error: BaseException) -> str:
        if isinstance(error, LogError):
            return str(error)
        return f"{self.path}: nothing was logged, {error}. {advice_on(error)}"
