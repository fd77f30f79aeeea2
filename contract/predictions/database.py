"""The tables of the log in PostgreSQL: who makes them, and how rows come in, once."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
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
from contract.predictions.typed_view import VIEW, columns_of, make_view

MIGRATION_PATIENCE_S = 600.0  # an index on millions of rows takes a while
ONE_AT_A_TIME = 0x50726564  # the number of a lock, for those who make tables
OPTIONAL = {"prediction", "lower", "upper"}
UUID, TEXT, TIME = "uuid", "text", "timestamp with time zone"
FLOAT, INT, JSON = "double precision", "integer", "jsonb"


@dataclass(frozen=True)
class Table:
    """A table in PostgreSQL; its first column is its key."""

    name: str
    columns: dict[str, str]  # and their types
    indexes: tuple[tuple[str, ...], ...] = ()


TABLES = {  # by their names in SQLite
    "predictions": Table(
        "predictions",
        {"id": UUID, "time": TIME, "model": TEXT, "source": TEXT, "request_id": TEXT}
        | {"features": JSON, "prediction": FLOAT, "lower": FLOAT, "upper": FLOAT}
        | {"latency_ms": FLOAT},
        indexes=(("time",), ("model", "time")),
    ),
    "rejections": Table(
        "prediction_rejections",
        {"id": UUID, "time": TIME, "source": TEXT, "field": TEXT, "rule": TEXT, "count": INT},
        indexes=(("time",),),
    ),
    "models": Table("prediction_models", {"version": TEXT, "time": TIME, "contract": JSON}),
    "truths": Table("prediction_truths", {"id": UUID, "time": TIME, "truth": FLOAT}),
}
COLUMNS = {name: tuple(table.columns) for name, table in TABLES.items()}


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
                    _insert(TABLES[table]), [_array(column) for column in zip(*rows, strict=True)]
                )
            except ValueError as error:  # NUL, or half of a surrogate pair
                reason = f"{self.address.name} cannot hold a value: {error}."
                raise BadRowError(reason, is_lasting=True) from error
            cursor.execute(self._timeout().encode() + query)

    def expect_tables(self) -> None:
        """Make tables that are missing, if the role may; DatabaseError unless all are ours."""
        with self._cursor() as cursor:
            cursor.execute(f"BEGIN; {self._timeout()}")
            missing = _missing(cursor)
            try:
                _make_tables(cursor, missing)
            except (errors.InsufficientPrivilege, errors.InvalidSchemaName) as error:
                names = ", ".join(table.name for table in missing)
                raise DatabaseError(
                    f"{self.address.name}: tables are missing, {names}, and this role may not make "
                    f"them. Run {MIGRATE} with an owner role.",
                    is_lasting=True,
                ) from error
            _check_tables(cursor, self.address)
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
            missing = _missing(cursor)
            _make_tables(cursor, TABLES.values())
            _check_tables(cursor, address)
            said = [
                f"The table {table.name} {'was made' if table in missing else 'is there'}."
                for table in TABLES.values()
            ]
            if contract:
                said.append(_make_view(cursor, contract, address))
            if grant_to:
                _grant(cursor, grant_to)
                said.append(f"The role {grant_to} may INSERT and SELECT.")
    return said


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


def _missing(cursor: extensions.cursor) -> list[Table]:
    cursor.execute(
        "SELECT name FROM unnest(%s) AS name WHERE to_regclass(name) IS NULL",
        [[table.name for table in TABLES.values()]],
    )
    names = {name for (name,) in cursor.fetchall()}
    return [table for table in TABLES.values() if table.name in names]


def _make_tables(cursor: extensions.cursor, tables: Iterable[Table]) -> None:
    statements = [_create(table) for table in tables]
    if statements:
        lock = f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})"
        cursor.execute("; ".join([lock, *statements]))


def _create(table: Table) -> str:
    """Give the statements that make a table and its indexes, each if it is not there."""
    key, *others = table.columns
    columns = [f"{key} {table.columns[key]} PRIMARY KEY"]
    for name in others:
        columns.append(f"{name} {table.columns[name]}{'' if name in OPTIONAL else ' NOT NULL'}")
    statements = [f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join(columns)})"]
    for index in table.indexes:
        name = "_".join([table.name, *index, "idx"])
        statements.append(f"CREATE INDEX IF NOT EXISTS {name} ON {table.name} ({', '.join(index)})")
    return "; ".join(statements)


def _insert(table: Table) -> str:
    """Give the statement that takes an array a column.

    It ships 60,000 rows/s, where a list of VALUES ships 39,000 and a JSON document 53,000. Naming
    the key keeps any other constraint from dropping rows in silence.
    """
    arrays = ", ".join(f"%s::{kind}[]" for kind in table.columns.values())
    return (
        f"INSERT INTO {table.name} ({', '.join(table.columns)}) SELECT * FROM unnest({arrays}) "  # noqa: S608
        f"ON CONFLICT ({next(iter(table.columns))}) DO NOTHING"
    )


def _array(values: Iterable[Any]) -> str:
    """Write an array as PostgreSQL reads it, which costs half of what psycopg2 takes for it."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _check_tables(cursor: extensions.cursor, address: DatabaseAddress) -> None:
    """Insert no rows into each table, at which PostgreSQL checks columns, types, key and rights."""
    for table in TABLES.values():
        try:
            cursor.execute(_insert(table), ["{}"] * len(table.columns))
        except (
            errors.UndefinedColumn,
            errors.DatatypeMismatch,
            errors.InvalidColumnReference,  # no such key
        ) as error:
            raise DatabaseError(
                f"{address.name}: the table {table.name} is not ours, "
                f"{error.diag.message_primary}. Rename it, or name another database.",
                is_lasting=True,
            ) from error


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
