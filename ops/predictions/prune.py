"""Delete old predictions, in the local file and in the database, for which it takes the owner."""

import argparse
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg2 import extensions

from contract.predictions.connection import connect, in_words
from contract.predictions.outbox import Outbox
from contract.predictions.read import FileReader
from contract.predictions.settings import DatabaseAddress, LogSettings
from ops.predictions.command import CommandError, say

LONGEST_DAYS = 365_000
PATIENCE_S = 60.0
ROWS_A_STEP = 10_000
TABLES = ("predictions", "prediction_rejections", "prediction_truths")
MAY_DELETE = "SELECT bool_and(has_table_privilege(name, 'DELETE')) FROM unnest(%s::text[]) AS name"
# a truth goes with its prediction
DELETE = (
    """WITH old AS (DELETE FROM predictions WHERE id IN (
        SELECT id FROM predictions WHERE time < %(before)s ORDER BY time LIMIT %(n)s) RETURNING id),
    truths AS (DELETE FROM prediction_truths USING old WHERE prediction_truths.id = old.id)
    SELECT count(*) FROM old""",
    """WITH old AS (DELETE FROM prediction_rejections WHERE id IN (
        SELECT id FROM prediction_rejections WHERE time < %(before)s ORDER BY time LIMIT %(n)s)
        RETURNING id)
    SELECT count(*) FROM old""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep-days", metavar="N", type=_parse_days, required=True)


def _parse_days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= LONGEST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days, expected 0 or more")
    return days


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    path, address = settings.log_path, settings.database
    if path is None:
        raise CommandError("PREDICTION_LOG is off, so there is nothing to prune. Set it to a path.")
    if address is None or path.exists():
        say(_prune_file(path, address, options.keep_days))
    if address is not None:
        say(_prune_database(address, datetime.now(UTC) - timedelta(days=options.keep_days)))


def _prune_file(path: Path, address: DatabaseAddress | None, keep_days: float) -> str:
    """Delete old rows, those that wait for the database excepted; give what was done."""
    FileReader(path)  # raises LogError unless it is a log
    with closing(Outbox(path, address.name if address else None)) as outbox:
        told = f"{path}: {outbox.prune(keep_days):,} rows deleted."
        n_waiting = outbox.lag().n_rows if address else 0
    if n_waiting:
        told += f" {n_waiting:,} rows wait for the database and stay, however old they are."
    return told


def _prune_database(address: DatabaseAddress, before: datetime) -> str:
    with in_words(address), closing(connect(address, patience_s=PATIENCE_S)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(MAY_DELETE, [list(TABLES)])
            if cursor.fetchone() != (True,):
                raise CommandError(
                    f"{address.name}: nothing deleted, as its role may not. Give the owner's "
                    "DATABASE_URL for this command."
                )
            n_rows = sum(_delete(cursor, statement, before) for statement in DELETE)
    return f"{address.name}: {n_rows:,} rows deleted."


def _delete(cursor: extensions.cursor, statement: str, before: datetime) -> int:
    """Delete in steps, each of which is over soon."""
    n_rows = 0
    while True:
        cursor.execute(statement, {"before": before, "n": ROWS_A_STEP})
        (n_deleted,) = cursor.fetchone()
        n_rows += n_deleted
        if n_deleted < ROWS_A_STEP:
            return n_rows
