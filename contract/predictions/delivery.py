"""Delivers the log to a database: every row at least once there, and by its id only once.

A row counts as delivered once the database has committed it. Whatever fails before that is written
down in the log, the rows are sent again, and the database ignores those that it has.
"""

import logging
import random
import re
import threading
import time
from contextlib import suppress

from contract.predictions.database import BadRowError, Database, DatabaseError
from contract.predictions.file import LogError
from contract.predictions.outbox import TABLES, Outbox

ROWS_A_BATCH = 2_000
FEWEST_ROWS = 50  # a batch shrinks to it where the database takes no larger one in time
POLL_S = 0.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.5  # after failures
PRUNE_EVERY_S = 3_600
PRUNE_ROWS = 2_000  # between two looks for new rows

logger = logging.getLogger(__name__)


def deliver_once(outbox: Outbox, database: Database, n_rows: int = ROWS_A_BATCH) -> int:
    """Deliver a batch of each table that has rows waiting; give how many rows it was.

    Rows that the database cannot hold are set apart and counted with the others. Raises
    DatabaseError or LogError; what was delivered before stays delivered.
    """
    n_done = 0
    try:
        for table in TABLES:
            rows = outbox.next_rows(table, n_rows)
            if rows:
                _send(outbox, database, table, rows)
            n_done += len(rows)
    finally:
        outbox.save()
    return n_done


def _send(outbox: Outbox, database: Database, table: str, rows: list[tuple]) -> None:
    """Insert rows; where one of them is bad, the halves each on their own, down to that one."""
    try:
        database.insert(table, [row[1:] for row in rows])
    except BadRowError as error:
        if len(rows) > 1:
            middle = len(rows) // 2
            _send(outbox, database, table, rows[:middle])
            _send(outbox, database, table, rows[middle:])
            return
        seq, row_id = rows[0][:2]
        outbox.set_apart(table, seq, str(error))
        logger.error(
            "%s: row %d of %s, id %s, cannot be delivered and is kept here: %s",
            outbox.path,
            seq,
            table,
            row_id,
            error,
        )
    else:
        outbox.delivered(table, rows[-1][0])


class Delivery:
    """Delivers one log to one database for as long as it is let, and prunes what is old."""

    def __init__(self, outbox: Outbox, database: Database, keep_days: float) -> None:
        self._outbox = outbox
        self._database = database
        self._keep_days = keep_days
        self._is_connected = False  # to a database with the tables we expect
        self._more = True  # rows may wait of which the outbox will tell no news
        self._n_rows = ROWS_A_BATCH
        self._prune_at_s = 0.0
        self._trouble: _Trouble | None = None
        self._said: str | None = None  # in the log, to those who ask

    def run(self, stop: threading.Event) -> None:
        """Deliver until told to stop, which comes after the current batch at the latest."""
        while not stop.is_set():
            stop.wait(self.step())

    def step(self) -> float:
        """Deliver a batch if there is one; give the seconds until the next step."""
        try:
            n_rows = self._deliver()
        except (DatabaseError, LogError) as error:
            pause_s = self._fail(error)
        else:
            self._succeed()
            if n_rows >= self._n_rows:
                self._n_rows = min(2 * self._n_rows, ROWS_A_BATCH)
                return 0.0
            pause_s = POLL_S
        if time.monotonic() >= self._prune_at_s:
            self._prune()
        return pause_s

    def drain(self, longest_s: float) -> None:
        """Try once more to deliver what waits; what fails, or comes meanwhile, is for the next."""
        give_up, n_rows = time.monotonic() + longest_s, ROWS_A_BATCH
        try:
            while n_rows >= ROWS_A_BATCH and time.monotonic() < give_up:
                n_rows = deliver_once(self._outbox, self._database)
        except (DatabaseError, LogError) as error:
            logger.warning("The last rows wait for the next to deliver them: %s", error)

    def _deliver(self) -> int:
        if not self._is_connected:
            self._database.expect_tables()
            self._is_connected = True
        if not (self._more or self._outbox.has_news()):
            return 0
        self._more = True
        n_done = deliver_once(self._outbox, self._database, self._n_rows)
        self._more = n_done >= self._n_rows
        return n_done

    def _fail(self, error: DatabaseError | LogError) -> float:
        """Take note of a failure; give the seconds until the next try."""
        self._more = True
        if isinstance(error, DatabaseError):
            self._is_connected = False
            self._n_rows = max(self._n_rows // 2, FEWEST_ROWS)
        self._trouble = self._trouble or _Trouble()
        pause_s = self._trouble.next_pause_s()
        if self._trouble.is_new(error):
            is_lasting = isinstance(error, LogError) or error.is_lasting
            logger.log(
                logging.ERROR if is_lasting else logging.WARNING,
                "%s Meanwhile %s; the next try comes within %.1f s.",
                error,
                self._waiting(),
                LONGEST_PAUSE_S,
            )
        self._say(str(error))
        return pause_s

    def _succeed(self) -> None:
        if self._trouble:
            logger.warning(
                "Rows are delivered again, after %.1f s and %d failures; %s.",
                time.monotonic() - self._trouble.began_s,
                self._trouble.n_failures,
                self._waiting(),
            )
            self._trouble = None
        self._say("")

    def _say(self, problem: str) -> None:
        if problem != self._said:
            with suppress(LogError):  # which the next step will meet, too
                self._said = problem if self._outbox.say(problem) else None

    def _waiting(self) -> str:
        try:
            return f"{self._outbox.lag().n_rows} rows wait"
        except LogError:
            return "nobody can tell how many rows wait"

    def _prune(self) -> None:
        """Prune a little; an hour later anew, once nothing is left."""
        try:
            n_pruned = self._outbox.prune(self._keep_days, PRUNE_ROWS)
        except LogError as error:
            n_pruned = 0
            logger.error("old rows stay in the log: %s", error)
        if not n_pruned:
            self._prune_at_s = time.monotonic() + PRUNE_EVERY_S


class _Trouble:
    """A time in which nothing can be delivered."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.n_failures = 0
        self._kinds: set[str] = set()

    def next_pause_s(self) -> float:
        """Let pauses grow, and differ, so that many servers do not come back in one moment."""
        longest_s = min(FIRST_PAUSE_S * 2 ** min(self.n_failures, 10), LONGEST_PAUSE_S)
        self.n_failures += 1
        return longest_s * random.uniform(0.5, 1)  # noqa: S311, no secret

    def is_new(self, error: Exception) -> bool:
        """Say whether this kind of failure has not come yet; its numbers make no other kind."""
        kind = re.sub(r"\d+", "", str(error))
        if kind in self._kinds:
            return False
        self._kinds.add(kind)
        return True
