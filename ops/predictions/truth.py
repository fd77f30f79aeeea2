"""Attach to logged predictions what came true, from a file with the columns id and truth."""

import argparse
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from psycopg2 import errors

from contract.features import Contract
from contract.predictions import file
from contract.predictions.connection import connect, in_words
from contract.predictions.file import LogError, advice_on, when_free
from contract.predictions.outbox import lag_of
from contract.predictions.read import Reader, open_log_for_reading
from contract.predictions.settings import DatabaseAddress, LogSettings
from contract.predictions.tables import NEWEST_TRUTHS
from ops.predictions.command import CommandError, say
from ops.predictions.truth_file import TruthFile, read_truths, refuse

TRUTH = "truth"
N_SHOWN = 5  # unknown ids
ROWS_A_STEP = 5_000
ROWS_A_COMMIT = 500  # of the file, during which answers of the server wait
PAUSE_S = 0.005  # between two commits, in which they come to their turn
PATIENCE_S = 60.0
# as those of contract.predictions.read; the ids are one JSON array
IN_LOG = """SELECT CAST(p.id AS text), p.model, t.truth
    FROM predictions p LEFT JOIN {truths} t ON t.id = p.id WHERE p.id IN ({each_id})"""
# A truth in the place of another is one more row: in the file with a `seq` of its own, by which it
# is delivered, too. The newest counts, so it is later than the other, whatever clocks say.
INTO_FILE = """INSERT OR REPLACE INTO truths (id, time, truth)
    SELECT :id, coalesce(max(:time, strftime('%Y-%m-%dT%H:%M:%fZ', max(time), '+0.001 seconds')),
        :time), :truth
    FROM truths WHERE id = :id"""
INTO_DATABASE = f"""INSERT INTO prediction_truths (id, time, truth)
    SELECT new.id, greatest(%s, given.time + interval '1 millisecond'), new.truth
    FROM unnest(%s::uuid[], %s::double precision[]) AS new (id, truth)
    LEFT JOIN {NEWEST_TRUTHS} AS given ON given.id = new.id
    ON CONFLICT (id, time) DO NOTHING"""  # noqa: S608


class Logged(NamedTuple):
    """What is known of a prediction."""

    model: str
    truth: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="csv, tsv, parquet or jsonl")
    parser.add_argument(
        "--skip-unknown", action="store_true", help="leave out ids that are not in the log"
    )


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    with closing(open_log_for_reading(settings)) as reader:
        contracts = reader.contracts()
        given = read_truths(options.file, _names(contracts))
        logged = _look_up(reader, [*given.truths])
    unknown = [row_id for row_id in given.truths if row_id not in logged]
    if unknown and not options.skip_unknown:
        raise CommandError(_about_unknown(given, unknown, reader.name, settings))
    refuse([*_out_of_range(given, logged, contracts)])
    say(f"{reader.name} {_attach(settings, given, logged)}")
    if unknown:
        say(f"{len(unknown):,} ids are not in the log and were skipped, such as {unknown[0]}.")


def _attach(settings: LogSettings, given: TruthFile, logged: Mapping[str, Logged]) -> str:
    """Write what is not known yet; give in words what was done."""
    new = {row_id: given.truths[row_id].value for row_id in logged}
    changed = [(row_id, truth) for row_id, truth in new.items() if truth != logged[row_id].truth]
    n_replaced = sum(logged[row_id].truth is not None for row_id, _ in changed)
    if settings.database is not None:
        _write_to_database(settings.database, changed)
    else:
        _write_to_file(settings.log_path, changed)
    return (
        f"has the truths of {len(new):,} predictions, from the column {given.column} of "
        f"{given.path}: {len(changed) - n_replaced:,} are new, {n_replaced:,} took the place of "
        f"another, {len(new) - len(changed):,} were known."
    )


def _names(contracts: Mapping[str, Contract]) -> list[str]:
    """Give the columns that may hold the truth, the first of them first."""
    targets = [contract.target.spellings for contract in reversed(contracts.values())]
    return list(dict.fromkeys([TRUTH, *chain.from_iterable(targets)]))


def _look_up(reader: Reader, ids: Sequence[str]) -> dict[str, Logged]:
    """Give what is known of each id that is in the log."""
    found = {}
    for some in _chunks(ids, ROWS_A_STEP):
        for row_id, model, truth in reader.ask(IN_LOG, ids=json.dumps(some)):
            found[row_id] = Logged(model, truth)
    return found


def _about_unknown(
    given: TruthFile, unknown: Sequence[str], log: str, settings: LogSettings
) -> str:
    shown = ", ".join(f"{row_id} ({given.place(row_id)})" for row_id in unknown[:N_SHOWN])
    told = (
        f"{len(unknown):,} of {len(given.truths):,} ids are not in {log}, such as {shown}. Nothing "
        "was attached. Correct the file, or leave them out with --skip-unknown."
    )
    if settings.database and settings.log_path and settings.log_path.exists():
        lag, _ = lag_of(settings.log_path, settings.database.name)
        if lag.n_rows:
            told += f" {lag.n_rows:,} rows wait to be delivered: python -m ops.predictions ship"
    return told


def _out_of_range(
    given: TruthFile, logged: Mapping[str, Logged], contracts: Mapping[str, Contract]
) -> Iterator[str]:
    """Tell what is beyond the range of the target that the row's own model predicts."""
    for row_id, (model, _) in logged.items():
        target = contracts[model].target if model in contracts else None
        truth = given.truths[row_id].value
        if target and target.range and not target.range[0] <= truth <= target.range[1]:
            place = given.place(row_id)
            yield f"{place}: the truth is {truth:g}, expected {target.name} of {target.domain}."


def _write_to_file(path: Path, truths: Sequence[tuple[str, float]]) -> None:
    """Write in short transactions, since the server appends meanwhile; once more does no harm."""
    now = file.now()
    try:
        with closing(file.connect(path)) as connection:
            for some in _chunks(truths, ROWS_A_COMMIT):
                when_free(connection, "BEGIN IMMEDIATE")
                connection.executemany(
                    INTO_FILE, [{"id": row, "time": now, "truth": truth} for row, truth in some]
                )
                when_free(connection, "COMMIT")
                time.sleep(PAUSE_S)
    except sqlite3.Error as error:
        told = f"{path}: not all truths are attached, {error}. {advice_on(error)}"
        raise LogError(f"{told} Then give the file again.") from error


def _write_to_database(address: DatabaseAddress, truths: Sequence[tuple[str, float]]) -> None:
    """Write all or nothing."""
    now = datetime.now(UTC)
    with (
        in_words(address),
        closing(connect(address, patience_s=PATIENCE_S)) as connection,
        connection.cursor() as cursor,
    ):
        for some in _chunks(truths, ROWS_A_STEP):
            ids, values = map(list, zip(*some, strict=True))
            try:
                cursor.execute(INTO_DATABASE, (now, ids, values))
            except errors.InsufficientPrivilege as error:
                raise CommandError(
                    f"{address.name}: nothing was attached, as this takes a role that may INSERT "
                    "into prediction_truths. Set DATABASE_URL with the server's role, or the owner."
                ) from error
        connection.commit()


def _chunks(values: Sequence, size: int) -> Iterator[Sequence]:
    return (values[first : first + size] for first in range(0, len(values), size))
