"""Making the tables of the log in PostgreSQL, and its view, with the role that owns them."""

from contextlib import closing

from psycopg2 import extensions, sql

from contract.features import Contract
from contract.predictions.address import DatabaseAddress
from contract.predictions.connection import DatabaseError, connect, in_words
from contract.predictions.tables import (
    TABLES,
    check_tables,
    make_tables,
    missing_tables,
    needs_new_key,
    renew_key,
)
from contract.predictions.typed_view import VIEW, columns_of, make_view

MIGRATION_PATIENCE_S = 600.0  # an index on millions of rows takes a while


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
