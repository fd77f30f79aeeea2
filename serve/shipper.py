"""The process that delivers the prediction log to PostgreSQL, or waits to follow who does.

A process of its own, since it must neither take the interpreter's lock from requests nor end with
the worker that happened to start it; serve.keeper keeps it alive. One that finds another at work
waits with all loaded, and takes over within TURN_S.
"""

import logging
import math
import os
import signal
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import ContractError
from contract.predictions.address import DatabaseAddress
from contract.predictions.database import Database, DatabaseError
from contract.predictions.delivery import Delivery
from contract.predictions.file import LogError
from contract.predictions.outbox import Outbox
from contract.predictions.turn import (
    holder_of,
    note_failures,
    sign,
    still_has_lock,
    still_has_place,
    take_lock,
)
from serve.logs import log_to_stderr

if TYPE_CHECKING:
    from contract.predictions.settings import LogSettings

NICE = 10  # answers come first
EARLY_S = 1.0  # a process that lives so long did not fail at its start
TURN_S = 0.1  # between two looks whether the log is free
LOOK_S = 1.0  # between two whether the log is still ours
STEP_IN_S = 0.5  # for which one that was told to end waits to deliver what another leaves
DRAIN_S, END_S = 2.0, 2.5  # to deliver what is left, and to end by force where that hangs
SIGNALS = {signal.SIGTERM, signal.SIGINT}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

logger = logging.getLogger("serve.shipper")  # also while it runs as __main__


@dataclass(frozen=True)
class Task:
    """What the process needs to know."""

    log_path: Path
    database: DatabaseAddress
    keep_days: float

    def as_environment(self) -> dict[str, str]:
        return {
            "PREDICTION_LOG": str(self.log_path),
            "PREDICTION_LOG_KEEP_DAYS": str(self.keep_days),
            "DATABASE_URL": self.database.url,
        }

    @classmethod
    def from_environment(cls) -> "Task":
        """Read what `as_environment` gave, which was checked: pydantic would double the start."""
        return cls(
            Path(os.environ["PREDICTION_LOG"]),
            DatabaseAddress(os.environ["DATABASE_URL"]),
            float(os.environ["PREDICTION_LOG_KEEP_DAYS"]),
        )

    @classmethod
    def of(cls, settings: "LogSettings") -> "Task":
        path, database = settings.log_path, settings.database
        if path is None or database is None:
            raise ContractError(
                "DATABASE_URL is not set, expected where the log is to be delivered."
            )
        return cls(path.absolute(), database, settings.prediction_log_keep_days)


def main() -> None:
    """Deliver until the pipe from whoever started this closes, or a signal comes.

    A Keeper gives the number of a descriptor that holds the place of the next in line, in which to
    wait for the turn; by hand, the log has to be free.
    """
    log_to_stderr("INFO")
    sys.excepthook = lambda *error: logger.critical("the shipper fails", exc_info=error)
    stop = threading.Event()
    # not by a handler, which might interrupt the very wait whose lock it then waits for
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for wait in (_await_signal, _await_end):
        threading.Thread(target=wait, args=(stop,), daemon=True).start()
    try:
        task, lock = _follow(int(sys.argv[1]), stop) if sys.argv[1:] else _begin_by_hand()
    except ContractError as error:
        logger.error("%s", error)
        raise SystemExit(1) from error
    if lock is not None:
        sign(lock, task.database.name)
        threading.Thread(target=_await_loss, args=(lock, task, stop), daemon=True).start()
        deliver(task, stop)
    logging.shutdown()
    os._exit(0)  # an end in order takes a processor 10 ms more, at a time when others start


def _await_signal(stop: threading.Event) -> None:
    signal.sigwait(SIGNALS)
    stop.set()


def _await_loss(lock: int, task: Task, stop: threading.Event) -> None:
    """Wait until another may deliver the log, too."""
    while still_has_lock(lock, task.log_path):
        time.sleep(LOOK_S)
    if not stop.is_set():
        logger.warning("%s: the file of its lock is gone, so this process ends", task.log_path)
        stop.set()


def _await_end(stop: threading.Event) -> None:
    """Wait until the pipe is closed, and then not for ever: a database may hang."""
    while os.read(0, 1024):
        pass
    stop.set()
    time.sleep(END_S)
    os._exit(0)  # what is not noted as delivered will be sent again


def _begin_by_hand() -> tuple[Task, int]:
    from contract.predictions.settings import LogSettings  # see Task.from_environment
    from contract.settings import read_settings

    os.nice(NICE)
    _set_level()
    task = Task.of(read_settings(LogSettings))
    lock = take_lock(task.log_path)
    if lock is None:
        holder = holder_of(task.log_path)
        told = f" ({holder})" if holder else ""
        raise ContractError(
            f"{task.log_path}: another process delivers it already{told}. "
            "Stop the server that has started it to deliver from here."
        )
    return task, lock


def _follow(place: int, stop: threading.Event) -> tuple[Task, int | None]:
    """Wait for the turn; the lock is None if it did not come before the end, or never can."""
    _set_level()
    task, has_turn = Task.from_environment(), threading.Event()
    threading.Thread(target=_leave, args=(place, has_turn), daemon=True).start()
    lock, end_s = take_lock(task.log_path), math.inf
    if lock is None:
        _try_out(task)
    while lock is None and time.monotonic() < end_s and still_has_place(place, task.log_path):
        if stop.wait(TURN_S):
            end_s = min(end_s, time.monotonic() + STEP_IN_S)
            time.sleep(TURN_S)
        lock = take_lock(task.log_path)
    has_turn.set()
    return task, lock


def _try_out(task: Task) -> None:
    """Find the way to log and database once: the first time takes longer. What fails may later."""
    with suppress(LogError, DatabaseError):
        with closing(Outbox(task.log_path, task.database.name)) as outbox:
            outbox.lag()
        with closing(Database(task.database)) as database:
            database.expect_tables()


def _leave(place: int, has_turn: threading.Event) -> None:
    """Make room for the next in line once this process has its turn, and has not failed early."""
    time.sleep(EARLY_S)
    note_failures(place, 0)
    has_turn.wait()
    os.close(place)


def _set_level() -> None:
    level = os.environ.get("LOG_LEVEL") or "INFO"
    if level not in LEVELS:
        raise ContractError(f"LOG_LEVEL is {level!r}, expected one of {', '.join(LEVELS)}.")
    logging.root.setLevel(level)


def deliver(task: Task, stop: threading.Event) -> None:
    """Deliver a log to its database, until told to stop."""
    outbox = Outbox(task.log_path, task.database.name)
    database = Database(task.database)
    delivery = Delivery(outbox, database, task.keep_days)
    if not stop.is_set():  # rather than for what the last one has left
        logger.info("%s is delivered to %s from now on", task.log_path, task.database.name)
    delivery.run(stop)
    delivery.drain(DRAIN_S)
    database.close()
    outbox.close()


if __name__ == "__main__":
    main()
