"""The tables of the log in PostgreSQL: what they are made of, and whether those there are ours."""

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg2 import errors, extensions, sql

from contract.predictions.address import DatabaseAddress
from contract.predictions.connection import MIGRATE, DatabaseError

ONE_AT_A_TIME = 0x50726564  # the number of a lock, for those who make tables
OPTIONAL = {"prediction", "lower", "upper"}
UUID, TEXT, TIME = "uuid", "text", "timestamp with time zone"
FLOAT, INT, JSON = "double precision", "integer", "jsonb"


@dataclass(frozen=True)
class Table:
    """A table in PostgreSQL."""

    name: str
    columns: dict[str, str]  # and their types, as format_type tells them
    key: tuple[str, ...] = ("id",)
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
    "models": Table(
        "prediction_models", {"version": TEXT, "time": TIME, "contract": JSON}, key=("version",)
    ),
    # a truth that is corrected is one more row, for which no role has to UPDATE
    "truths": Table(
        "prediction_truths", {"id": UUID, "time": TIME, "truth": FLOAT}, key=("id", "time")
    ),
}
COLUMNS = {name: tuple(table.columns) for name, table in TABLES.items()}
# An anti join, which PostgreSQL can look up by id; with DISTINCT ON it would sort them all.
NEWEST_TRUTHS = """(SELECT id, time, truth FROM prediction_truths AS given
    WHERE NOT EXISTS (SELECT FROM prediction_truths AS later
        WHERE later.id = given.id AND later.time > given.time))"""
COLUMNS_THERE = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""
KEYS_THERE = """SELECT conname, ARRAY(SELECT attname::text FROM pg_attribute
        WHERE attrelid = conrelid AND attnum = ANY(conkey) ORDER BY attname)
    FROM pg_constraint WHERE conrelid = to_regclass(%s) AND contype IN ('p', 'u')"""


def insertion(table: Table) -> str:
    """Give the statement that inserts what is not there yet, and takes an array a column.

    It ships 60,000 rows/s, where a list of VALUES ships 39,000 and a JSON document 53,000. Naming
    the key keeps any other constraint from dropping rows in silence.
    """
    arrays = ", ".join(f"%s::{kind}[]" for kind in table.columns.values())
    return (
        f"INSERT INTO {table.name} ({', '.join(table.columns)}) SELECT * FROM unnest({arrays}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(table.key)}) DO NOTHING"
    )


def missing_tables(cursor: extensions.cursor) -> list[Table]:
    cursor.execute(
        "SELECT name FROM unnest(%s) AS name WHERE to_regclass(name) IS NULL",
        [[table.name for table in TABLES.values()]],
    )
    names = {name for (name,) in cursor.fetchall()}
    return [table for table in TABLES.values() if table.name in names]


def make_tables(cursor: extensions.cursor, tables: Iterable[Table]) -> None:
    statements = [_create(table) for table in tables]
    if statements:
        lock = f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})"
        cursor.execute("; ".join([lock, *statements]))


def _create(table: Table) -> str:
    """Give the statements that make a table and its indexes, each if it is not there."""
    columns = [
        f"{name} {kind}{'' if name in OPTIONAL else ' NOT NULL'}"
        for name, kind in table.columns.items()
    ]
    columns.append(f"PRIMARY KEY ({', '.join(table.key)})")
    statements = [f"CREATE TABLE IF NOT EXISTS {table.name} ({', '.join(columns)})"]
    for index in table.indexes:
        name = "_".join([table.name, *index, "idx"])
        statements.append(f"CREATE INDEX IF NOT EXISTS {name} ON {table.name} ({', '.join(index)})")
    return "; ".join(statements)


def check_tables(
    cursor: extensions.cursor, tables: Iterable[Table], address: DatabaseAddress
) -> None:
    """Insert no rows into each table, at which PostgreSQL checks columns, types, key and rights.

    Raises DatabaseError that names each column that is another.
    """
    cursor.execute("SAVEPOINT checking")
    for table in tables:
        try:
            cursor.execute(insertion(table), ["{}"] * len(table.columns))
        except (
            errors.UndefinedColumn,
            errors.DatatypeMismatch,
            errors.InvalidColumnReference,  # no such key
        ) as error:
            cursor.execute("ROLLBACK TO SAVEPOINT checking")
            raise _not_ours(cursor, table, address) from error


def _not_ours(cursor: extensions.cursor, table: Table, address: DatabaseAddress) -> DatabaseError:
    if _older_keys(cursor, table):
        return DatabaseError(
            f"{address.name}: the table {table.name} is of an earlier release: its key is id, "
            f"expected {' and '.join(table.key)}. Run {MIGRATE} with the role that owns it.",
            is_lasting=True,
        )
    return DatabaseError(
        f"{address.name}: the table {table.name} is not ours: "
        f"{', '.join(_differences(cursor, table))}. Rename it, or name another database.",
        is_lasting=True,
    )


def _differences(cursor: extensions.cursor, table: Table) -> list[str]:
    """Tell what of a table is other than expected."""
    cursor.execute(COLUMNS_THERE, [table.name])
    there = dict(cursor.fetchall())
    told = []
    for name, kind in table.columns.items():
        if name not in there:
            told.append(f"it has no column {name}, expected it as {kind}")
        elif there[name] != kind:
            told.append(f"its column {name} is {there[name]}, expected {kind}")
    if sorted(table.key) not in [columns for _, columns in _keys(cursor, table)]:
        told.append(f"it has no key {' and '.join(table.key)}")
    return told


def _keys(cursor: extensions.cursor, table: Table) -> list[tuple[str, list[str]]]:
    cursor.execute(KEYS_THERE, [table.name])
    return cursor.fetchall()


def _older_keys(cursor: extensions.cursor, table: Table) -> list[str]:
    """Name the constraints by which a table keeps one row an id, as it did for truths, too."""
    if table.key != ("id", "time"):
        return []
    return [name for name, columns in _keys(cursor, table) if columns == ["id"]]


def needs_new_key(cursor: extensions.cursor) -> bool:
    """Say whether the truths there are those of an earlier release, which kept one an id."""
    return bool(_older_keys(cursor, TABLES["truths"]))


def renew_key(cursor: extensions.cursor) -> None:
    """Let truths have several rows an id; all that are there stay."""
    truths = TABLES["truths"]
    changes = [
        sql.SQL("DROP CONSTRAINT {}").format(sql.Identifier(name))
        for name in _older_keys(cursor, truths)
    ]
    changes.append(sql.SQL(f"ADD PRIMARY KEY ({', '.join(truths.key)})"))
    cursor.execute(sql.SQL(f"ALTER TABLE {truths.name} {{}}").format(sql.SQL(", ").join(changes)))
