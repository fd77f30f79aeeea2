"""Deletes old rows from the log and gives the disk its space back, while appends go on.

Each transaction takes about a millisecond, and between two of them there is time for those who
wait. On a full disk what is deleted has to pass through the WAL as well; so it is copied often, and
a few MiB of room, the ballast's, suffice for any number of rows.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from contract.predictions.file import when_free

TABLES = {  # of which old rows go, and which of them do not
    "predictions": "",
    "rejections": "",
    "truths": "AND NOT EXISTS (SELECT 1 FROM predictions p WHERE p.id = truths.id)",
}
ROWS = 500  # in one transaction at the most, fewer where they take longer than ...
LONG_S = 0.004  # ... this
PAGES = 64  # given back in one transaction
PAUSE_S = 0.004  # at least, between two: those who wait look every 0.002 s
PAGES_A_ROW = 4  # given back at the most for each row that may be deleted
WAL_PAGES = 250  # after which the WAL is copied
ALL = 2**63 - 1


def first_id(time_s: float) -> str:
    """Give the least id of a time; UUIDs of version 7 begin with it, in ms."""
    digits = f"{int(1000 * max(time_s, 0)):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def prune(
    log: sqlite3.Connection, delivered: Mapping[str, int] | None, before: str, limit: int
) -> Iterator[int]:
    """Delete rows with ids before one, at most `limit`; gives after each transaction how many.

    `delivered` holds the last `seq` by table that may go; None: all may. The newest row of a table
    stays, so that no `seq` is given twice; so do undeliverable rows, and truths of what stays.
    """
    n_pages = PAGES_A_ROW * limit
    log.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    try:
        for table in TABLES:
            last = ALL if delivered is None else delivered.get(table, 0)
            for n_rows in _delete(log, table, before, last, limit):
                limit -= n_rows
                yield n_rows
        _give_back(log, n_pages)
    finally:
        log.execute("PRAGMA wal_autocheckpoint = 0")


@contextmanager
def writing(log: sqlite3.Connection) -> Iterator[None]:
    """Make one transaction of a block, as soon as nobody else writes."""
    when_free(log, "BEGIN IMMEDIATE")
    try:
        yield
        log.execute("COMMIT")
    finally:
        if log.in_transaction:
            log.execute("ROLLBACK")


def _delete(
    log: sqlite3.Connection, table: str, before: str, last: int, limit: int
) -> Iterator[int]:
    n_rows = ROWS // 4
    while limit > 0:
        seqs = _old_rows(log, table, before, last, min(n_rows, limit))
        if not seqs:
            return
        with writing(log):
            began_s = time.monotonic()
            found = "SELECT value FROM json_each(?)"
            log.execute(f"DELETE FROM {table} WHERE seq IN ({found})", [json.dumps(seqs)])  # noqa: S608
        took_s = time.monotonic() - began_s
        n_rows = max(n_rows // 2, 10) if took_s > LONG_S else min(2 * n_rows, ROWS)
        limit -= len(seqs)
        yield len(seqs)
        time.sleep(max(took_s, PAUSE_S))


def _old_rows(log: sqlite3.Connection, table: str, before: str, last: int, limit: int) -> list[int]:
    """Give which rows may go. Their times are read, too, so that their pages are at hand."""
    query = f"""
        SELECT seq, time FROM {table}
        WHERE id < ? AND seq <= ? AND seq < (SELECT max(seq) FROM {table})
            AND seq NOT IN (SELECT seq FROM undeliverable WHERE table_name = ?)
            {TABLES[table]}
        ORDER BY id LIMIT ?
    """  # noqa: S608
    return [seq for seq, _ in log.execute(query, (before, last, table, limit))]


def _give_back(log: sqlite3.Connection, n_pages: int) -> None:
    """Cut so many free pages off the file, a few at a time."""
    was_free = -1
    while n_pages > 0:
        (n_free,) = log.execute("PRAGMA freelist_count").fetchone()
        if n_free in (0, was_free):
            return
        was_free = n_free
        n_pages -= PAGES
        with writing(log):
            began_s = time.monotonic()
            for _ in range(min(n_free, PAGES)):  # Python takes one step of it, whatever the number
                log.execute("PRAGMA incremental_vacuum(1)")
        time.sleep(max(time.monotonic() - began_s, PAUSE_S))
