"""The log in PostgreSQL: how rows come in, once. What the delivery needs, and no more."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg2 import errors, extensions

from contract.predictions.address import DatabaseAddress
from contract.predictions.connection import (
    MIGRATE,
    BadRowError,
    DatabaseError,
    connect,
    in_words,
)
from contract.predictions.tables import (
    TABLES,
    check_tables,
    insertion,
    make_tables,
    missing_tables,
)


class Database:
    """One connection, opened at the first use and anew after a failure; not for several threads."""

    def __init__(self, address: DatabaseAddress, *, patience_s: float = 5.0) -> None:
        self.address = address
        self._patience_s = patience_s
        self._connection: extensions.connection | None = None

    def insert(self, table: str, rows: Sequence[tuple]) -> None:
        """Insert rows, each in the order of COLUMNS[table], but for those that are there already.

        All are committed when this returns, or none: BadRowError if a value of theirs cannot be
        held, else DatabaseError.
        """
        if not rows:
            return
        with self._cursor() as cursor:
            try:
                query = cursor.mogrify(
                    insertion(TABLES[table]), [_array(column) for column in zip(*rows, strict=True)]
                )
            except ValueError as error:  # NUL, or half of a surrogate pair
                reason = f"{self.address.name} cannot hold a value: {error}."
                raise BadRowError(reason, is_lasting=True) from error
            cursor.execute(self._timeout().encode() + query)

    def expect_tables(self) -> None:
        """Make tables that are missing, if the role may; DatabaseError unless all are ours."""
        with self._cursor() as cursor:
            cursor.execute(f"BEGIN; {self._timeout()}")
            missing = missing_tables(cursor)
            try:
                make_tables(cursor, missing)
            except (errors.InsufficientPrivilege, errors.InvalidSchemaName) as error:
                names = ", ".join(table.name for table in missing)
                raise DatabaseError(
                    f"{self.address.name}: tables are missing, {names}, and this role may not make "
                    f"them. Run {MIGRATE} with an owner role.",
                    is_lasting=True,
                ) from error
            check_tables(cursor, TABLES.values(), self.address)
            cursor.execute("COMMIT")

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _timeout(self) -> str:
        """Bound a statement there, too: it would wait for a lock when we have long left."""
        return f"SET LOCAL statement_timeout = {max(1, round(self._patience_s * 900))}; "  # ms

    @contextmanager
    def _cursor(self) -> Iterator[extensions.cursor]:
        try:
            with in_words(self.address):
                if not self._connection:
                    self._connection = connect(self.address, patience_s=self._patience_s)
                    self._connection.autocommit = True  # one query is one transaction
                with self._connection.cursor() as cursor:
                    yield cursor
        except BadRowError:
            raise
        except BaseException:
            self.close()
            raise


def _array(values: Iterable[Any]) -> str:
    """Write an array as PostgreSQL reads it, which costs half of what psycopg2 takes for it."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
