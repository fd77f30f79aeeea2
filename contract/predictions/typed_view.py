"""The typed view of the prediction log in PostgreSQL: one column a feature of a contract.

A row of an older contract, or a feature that was hashed, is NULL where the type is another: no
query of the view ever fails because of what a row holds.
"""

from collections.abc import Collection
from itertools import chain, count

from psycopg2 import errors, extensions, sql

from contract.features import Contract, Feature
from contract.predictions.tables import NEWEST_TRUTHS

VIEW = "predictions_typed"
LOGGED = (
    *("id", "time", "model", "source", "request_id"),
    *("prediction", "lower", "upper", "latency_ms"),
)
TAKEN = (*LOGGED, "truth")
MAX_BYTES = 63  # of a name in PostgreSQL, which cuts off the rest
# Of a JSON number, which may be beyond all types. Only CASE is sure to look before it casts. The
# limits are read from text, else PostgreSQL shows them with all of their 300 digits.
FLOAT = """CASE jsonb_typeof(features -> {key}) WHEN 'number' THEN
    CASE WHEN abs((features -> {key})::numeric) BETWEEN '5e-324'::text::numeric
            AND '1.7976931348623157e308'::text::numeric THEN (features -> {key})::double precision
        WHEN (features -> {key})::numeric = 0 THEN 0 END END"""
INT = """CASE jsonb_typeof(features -> {key}) WHEN 'number' THEN
    CASE WHEN (features -> {key})::numeric % 1 = 0 AND (features -> {key})::numeric
            BETWEEN -9223372036854775808 AND 9223372036854775807
        THEN (features -> {key})::bigint END END"""
GRANTS = """WITH granted AS (
        SELECT relowner, NULL AS attname, relacl AS acl
        FROM pg_class WHERE oid = to_regclass(%(view)s)
        UNION ALL SELECT relowner, attname, attacl
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND NOT attisdropped
        WHERE pg_class.oid = to_regclass(%(view)s))
    SELECT privilege_type, attname,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
        CASE WHEN is_grantable THEN 'WITH GRANT OPTION' ELSE '' END
    FROM granted, aclexplode(acl) WHERE grantee <> relowner"""
TEXT = "CASE jsonb_typeof(features -> {key}) WHEN 'string' THEN features ->> {key} END"


def columns_of(contract: Contract) -> dict[str, str]:
    """Name the view's column of each feature: as the feature, if that name is free and short."""
    columns: dict[str, str] = {}
    for name in contract.names():
        wanted = f"feature_{name}" if name in TAKEN else name
        names = (_cut(wanted, end) for end in chain([""], (f"_{n}" for n in count(2))))
        columns[name] = next(name for name in names if name not in {*TAKEN, *columns.values()})
    return columns


def _cut(name: str, end: str) -> str:
    return name.encode()[: MAX_BYTES - len(end)].decode(errors="ignore") + end


def make_view(cursor: extensions.cursor, contract: Contract) -> None:
    """Make the view, or give it the columns of another contract; who could read it still can.

    Raises psycopg2.errors.DependentObjectsStillExist if other views need columns that change.
    """
    query = _select(contract)
    cursor.execute("SAVEPOINT replacing")
    try:
        cursor.execute(sql.SQL(f"CREATE OR REPLACE VIEW {VIEW} AS ") + query)
    except errors.InvalidTableDefinition:  # it can be given more columns, but no others
        cursor.execute("ROLLBACK TO SAVEPOINT replacing")
        grants = _grants(cursor, [*TAKEN, *columns_of(contract).values()])
        cursor.execute(f"DROP VIEW {VIEW}")
        cursor.execute(sql.SQL(f"CREATE VIEW {VIEW} AS ") + query)
        for grant in grants:
            cursor.execute(grant)


def _select(contract: Contract) -> sql.Composed:
    """Give the query of the view; to be executed without values, for a name may hold a %."""
    columns = columns_of(contract)
    typed = [_typed(feature, columns[feature.name]) for feature in contract.features]
    logged = (sql.SQL(f"predictions.{name}") for name in LOGGED)
    query = f"SELECT {{}} FROM predictions LEFT JOIN {NEWEST_TRUTHS} AS newest USING (id)"  # noqa: S608
    return sql.SQL(query).format(sql.SQL(", ").join([*logged, sql.SQL("truth"), *typed]))


def _typed(feature: Feature, column: str) -> sql.Composed:
    number = INT if feature.dtype == "int" else FLOAT
    template = number if feature.kind == "numeric" else TEXT
    typed = sql.SQL(template).format(key=sql.Literal(feature.name))
    return sql.SQL("{} AS {}").format(typed, sql.Identifier(column))


def _grants(cursor: extensions.cursor, columns: Collection[str]) -> list[sql.Composable]:
    """Give the statements that grant again what is granted on the view and on these columns."""
    cursor.execute(GRANTS, {"view": VIEW})
    return [
        sql.SQL("GRANT {} {} ON {} TO {} {}").format(
            sql.SQL(privilege),
            sql.SQL("({})").format(sql.Identifier(column)) if column else sql.SQL(""),
            sql.SQL(VIEW),
            sql.SQL(grantee),
            sql.SQL(option),
        )
        for privilege, column, grantee, option in cursor.fetchall()
        if column is None or column in columns
    ]
