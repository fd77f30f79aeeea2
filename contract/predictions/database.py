"""The log in PostgreSQL: how rows come in, once, and who makes its tables and its view."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from psycopg2 import errors, extensions, sql

from contract.features import Contract
from contract.predictions.connection import (
    MIGRATE,
    BadRowError,
    DatabaseError,
    connect,
    in_words,
)
from contract.predictions.settings import DatabaseAddress
from contract.predictions.tables import (
    TABLES,
    check_tables,
    insertion,
    make_tables,
    missing_tables,
    needs_new_key,
    renew_key,
)
from contract.predictions.typed_view import VIEW, columns_of, make_view

MIGRATION_PATIENCE_S = 600.0  # an index on millions of rows takes a while


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


def migrate(address: DatabaseAddress, contract: Contract | None, grant_to: str = "") -> list[str]:
    """Make tables, indexes and the view of a contract, all or nothing; say what was done.

    The role gets what the server needs: INSERT and SELECT.
    """
    with in_words(address), closing(connect(address, patience_s=5.0)) as connection:
        connection.patience_s = MIGRATION_PATIENCE_S
        with connection, connection.cursor() as cursor:
            missing = missing_tables(cursor)
            said = [
                f"The table {table.name} {'was made' if table in missing else 'is there'}."
                for table in TABLES.values()
            ]
            if needs_new_key(cursor):
                said.append(_renew_key(cursor, contract, address))
            check_tables(cursor, [t for t in TABLES.values() if t not in missing], address)
            make_tables(cursor, TABLES.values())
            if contract:
                said.append(_make_view(cursor, contract, address))
            if grant_to:
                _grant(cursor, grant_to)
                said.append(f"The role {grant_to} may INSERT and SELECT.")
    return said


def _renew_key(
    cursor: extensions.cursor, contract: Contract | None, address: DatabaseAddress
) -> str:
    """Let a truth be corrected; the view of an earlier release would then show it twice."""
    cursor.execute("SELECT to_regclass(%s)", [VIEW])
    if contract is None and cursor.fetchone() != (None,):
        raise DatabaseError(
            f"{address.name}: the view {VIEW} is of an earlier release and has to be made anew "
            "with the tables. Set MODEL_FOLDER to the folder of a model, or drop the view.",
            is_lasting=True,
        )
    renew_key(cursor)
    return "The table prediction_truths keeps several truths an id from now on; the newest counts."


def _make_view(cursor: extensions.cursor, contract: Contract, address: DatabaseAddress) -> str:
    try:
        make_view(cursor, contract)
    except ValueError as error:  # NUL, or half of a surrogate pair
        raise DatabaseError(
            f"{address.name} cannot hold the name of a feature: {error}. Rename it.",
            is_lasting=True,
        ) from error
    names = ", ".join(columns_of(contract).values())
    return f"The view {VIEW} was made, with the features {names}."


def _array(values: Iterable[Any]) -> str:
    """Write an array as PostgreSQL reads it, which costs half of what psycopg2 takes for it."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _grant(cursor: extensions.cursor, role: str) -> None:
    cursor.execute("SELECT current_schema(), to_regclass(%s)", [VIEW])
    schema, view = cursor.fetchone()
    tables = [table.name for table in TABLES.values()]
    grants = [f"GRANT INSERT, SELECT ON {', '.join(tables)} TO {{role}}"]
    grants.append("GRANT USAGE ON SCHEMA {schema} TO {role}")
    if view:
        grants.append(f"GRANT SELECT ON {VIEW} TO {{role}}")
    names = {"role": sql.Identifier(role), "schema": sql.Identifier(schema)}
    cursor.execute(sql.SQL("; ".join(grants)).format(**names))
