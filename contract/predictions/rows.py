"""Rows on their way into the file of the prediction log."""

import sqlite3
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

from contract.predictions.file import MODELS, Table

ROWS_A_STATEMENT = 100  # more gain nothing
MARK_BYTES = 16_384  # in 6 pages; a row changes 2, and 6 where pages are split


@cache
def _insert(table: Table, n_rows: int) -> str:
    """Give the statement for n rows, which binds once what they share.

    It costs half of what `executemany` does.
    """
    n_shared, n_own = len(table.shared), len(table.own)
    shared = "".join(f"?{i + 1}, " for i in range(n_shared))
    own = [f"?{n_shared + i + 1}" for i in range(n_rows * n_own)]
    rows = (shared + ", ".join(own[i : i + n_own]) for i in range(0, len(own), n_own))
    columns = ", ".join(table.shared + table.own)
    verb = "INSERT OR IGNORE" if table is MODELS else "INSERT"
    return f"{verb} INTO {table.name} ({columns}) VALUES ({'), ('.join(rows)})"


@dataclass(eq=False, slots=True)
class Rows:
    """Rows of one append, on their way into the file."""

    table: Table
    shared: tuple
    own: list[tuple]
    turn: Any = field(default_factory=threading.Lock)  # held until they are in, or next to write
    taken: bool = False
    error: BaseException | None = None  # why they are not in the file

    def insert(self, connection: sqlite3.Connection) -> None:
        for first in range(0, len(self.own), ROWS_A_STATEMENT):
            rows = self.own[first : first + ROWS_A_STATEMENT]
            values = (*self.shared, *chain.from_iterable(rows))
            connection.execute(_insert(self.table, len(rows)), values)


class Mark(Rows):
    """No rows, but all that it takes to write some: as much room, where a disk is nearly full."""

    def insert(self, connection: sqlite3.Connection) -> None:
        mark = f"{time.time_ns()}".ljust(MARK_BYTES)
        statement = "INSERT OR REPLACE INTO delivery_state VALUES ('', '', ?)"  # '' is no target
        connection.execute(statement, [mark])
