"""Deliver now to the database what waits in the local file, or again what it may have lost."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from contract.predictions.counts import delivery_of
from contract.predictions.database import Database
from contract.predictions.delivery import deliver_once
from contract.predictions.outbox import Outbox, lag_of
from contract.predictions.read import FileReader
from contract.predictions.resending import Resending
from contract.predictions.settings import DatabaseAddress, LogSettings
from contract.predictions.turn import Holder, holder_of, sign, take_lock
from ops.predictions.command import CommandError, add_since, note, say

LOOK_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--again",
        action="store_true",
        help="also what was delivered and is still in the file, such as after a restore of the "
        "database, which keeps each row once",
    )
    add_since(parser, "with --again, ")


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    path, address = settings.log_path, settings.database
    if address is None or path is None:
        raise CommandError("There is no database to deliver to: set DATABASE_URL.")
    if options.since and not options.again:
        raise CommandError("--since is for --again: what waits is always delivered. Add --again.")
    FileReader(path)  # raises LogError unless it is a log
    show = _show_on_terminal if sys.stderr.isatty() else _show_nothing
    if options.again:
        n_rows = _deliver(Resending(path, address.name, options.since), address, show)
        say(f"{address.name} was sent {n_rows:,} rows of {path} again; it keeps each once.")
    if (lock := _take_turn(path, address, show)) is None:
        say(f"{address.name} has all rows; the server's shipper delivered them.")
        return
    try:
        n_rows = _deliver(Outbox(path, address.name), address, show)
    finally:
        os.close(lock)
    say(f"{address.name} has all rows of {path}, {n_rows:,} of them only now.")
    delivery = delivery_of(settings)
    if delivery and delivery.n_undeliverable:
        note(f"{delivery.n_undeliverable:,} rows cannot be delivered and are kept in {path}.")


def _take_turn(path: Path, address: DatabaseAddress, show: Callable[[int], None]) -> int | None:
    """Wait while the server's own shipper delivers; None once nothing is left to do."""
    holder = None
    while (lock := take_lock(path)) is None:
        was, holder = holder, holder_of(path)
        if holder and holder == was:  # it is not just being signed
            _expect_ours(holder, path, address)
        lag, problem = lag_of(path, address.name)
        if problem:
            raise CommandError(f"The server's shipper is at it, and has a problem: {problem}")
        if not lag.n_rows:
            return None
        if was is None:
            note(f"{lag.n_rows:,} rows wait for another process to deliver them.")
        show(lag.n_rows)
        time.sleep(LOOK_S)
    sign(lock, address.name)
    return lock


def _expect_ours(holder: Holder, path: Path, address: DatabaseAddress) -> None:
    if holder.target != address.name:
        raise CommandError(
            f"{path}: {holder}, so that {address.name} gets no rows. Give each server a "
            f"PREDICTION_LOG of its own; to deliver to both, end process {holder.pid} first."
        )


def _deliver(outbox: Outbox, address: DatabaseAddress, show: Callable[[int], None]) -> int:
    n_rows = 0
    with closing(outbox), closing(Database(address)) as database:
        database.expect_tables()
        while n_more := deliver_once(outbox, database):
            n_rows += n_more
            show(outbox.lag().n_rows)
        outbox.say("")
    return n_rows


def _show_on_terminal(n_waiting: int) -> None:
    sys.stderr.write(f"\r{n_waiting:>12,} rows wait " + ("\n" if n_waiting == 0 else ""))


def _show_nothing(n_waiting: int) -> None:
    pass
