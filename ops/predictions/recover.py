"""Bring back into the log what can still be read of a damaged file that was set aside."""

import argparse
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

from contract.predictions.file import advice_on, open_log
from contract.predictions.pruning import writing
from contract.predictions.salvage import COLUMNS, Salvage
from contract.predictions.settings import LogSettings
from ops.predictions.command import CommandError, note, say

ROWS_A_COMMIT = 500  # in which appends hardly wait
WAL_PAGES = 1_000  # after which the log's WAL is copied: no server may be there to do so
INSERT = {
    table: f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
    for table, names in COLUMNS.items()
    for marks in [", ".join("?" * len(names))]
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="such as logs/predictions.db.damaged-1764000000"
    )


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    source, path = options.file, settings.log_path
    if path is None:
        raise CommandError("PREDICTION_LOG is off, so there is no log. Set it to a path.")
    if not any(Path(f"{source}{suffix}").is_file() for suffix in ("", ".wal")):
        raise CommandError(f"{source} does not exist, or is no file: name what was set aside.")
    if source.exists() and path.exists() and source.samefile(path):
        raise CommandError(f"{source} is the log itself, which a server sets aside if need be.")
    try:
        found, added, n_missing = _copy(source, path)
    except sqlite3.Error as error:
        raise CommandError(f"{path}: {error}. {advice_on(error)} Then start again.") from error
    if not found.total():
        raise CommandError(
            f"{source} holds no rows of a prediction log that can be read. Name what was set "
            "aside, which ends in .damaged- and digits; the .wal beside it is read with it."
        )
    for table in COLUMNS:
        say(f"{table:<12}{found[table]:>12,} rows found, {added[table]:,} of them new in {path}")
    if n_missing:
        note(f"{n_missing:,} pages of {source} are lost, with what they held.")
    if ".damaged-" in source.name:
        say(f"What was set aside is now {_rename(source)}; nothing needs it any more.")


def _copy(source: Path, path: Path) -> tuple[Counter[str], Counter[str], int]:
    """Copy all rows, those that are there already excepted; count those found and those added."""
    found, added = Counter(), Counter()
    with Salvage(source) as salvage, closing(open_log(path, sync_full=True)) as log:
        inode = path.stat().st_ino
        log.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        rows = salvage.rows()
        while some := list(islice(rows, ROWS_A_COMMIT)):
            with writing(log):
                for table, values in some:
                    found[table] += 1
                    added[table] += log.execute(INSERT[table], values).rowcount
        if path.stat().st_ino != inode:
            raise CommandError(f"{path} was replaced meanwhile: start again.")
    return found, added, salvage.n_missing


def _rename(source: Path) -> Path:
    """Give the files a name that tells that they are done with."""
    done = source.with_name(source.name.replace(".damaged-", ".recovered-"))
    for suffix in ("", ".wal"):
        with suppress(FileNotFoundError):
            Path(f"{source}{suffix}").rename(f"{done}{suffix}")
    return done
