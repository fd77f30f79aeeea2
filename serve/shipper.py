"""The process that delivers the prediction log to PostgreSQL, and what keeps one alive.

A process of its own, since it must neither take the interpreter's lock from requests nor end with
the worker that happened to start it. Each worker has a Keeper, which tries the lock of the log; who
gets it starts the process and hands the lock over. When the process ends, however it does, the
kernel frees the lock, and the next Keeper to try starts another; when the worker ends, the pipe to
its process closes, and the process ends, too.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import ContractError
from contract.predictions.address import DatabaseAddress
from contract.predictions.database import Database
from contract.predictions.delivery import Delivery
from contract.predictions.outbox import Outbox
from contract.predictions.turn import N_EARLY_BYTES, holder_of, sign, take_lock
from serve.logs import log_to_stderr

if TYPE_CHECKING:
    from contract.predictions.settings import LogSettings

MODULE = "serve.shipper"  # also while it runs as __main__
ROOT = Path(__file__).parents[1]
LOOK_S = 0.5
EARLY_S = 1.0  # a process that lives so long did not fail at its start ...
LONG_START_S = 10.0  # ... which on a busy machine may itself take up to this
LONGEST_PAUSE_S = 5.0  # between two that did
DRAIN_S, END_S = 2.0, 2.5  # to deliver what is left, and to end by force where that hangs
STARVES = "gets no rows. Give each server a PREDICTION_LOG of its own."
NICE = 10  # answers come first
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

logger = logging.getLogger(MODULE)


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


class Keeper:
    """Keeps one process alive that delivers the log, together with those of other workers."""

    def __init__(self, settings: "LogSettings") -> None:
        """Take settings with a log and a database."""
        self._task = _task_of(settings)
        self._path = self._task.log_path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="shipper", daemon=True)
        self._process: subprocess.Popen | None = None
        self._began_s = 0.0
        self._n_early = 0  # processes before this one that failed at their start
        self._told = ""
        self._target = self._task.database.name
        self._others_target = ""  # to which another server delivers this log

    def start(self) -> None:
        """Begin to look after it; called in each worker, after the fork."""
        self._thread.start()

    def close(self) -> None:
        """Let the process deliver what is left and end, if this worker has started it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._process:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):  # somebody has frozen it
                self._process.wait(2 * END_S)

    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except OSError as error:
                self._tell(f"cannot be started: {error}")
            self._stop.wait(LOOK_S)

    def _look(self) -> None:
        """Start the process if there is none."""
        if self._process:
            status = self._process.poll()
            if status is None:
                return
            self._process.stdin.close()
            self._process = None
            self._note_end(status)
        lock = take_lock(self._path)
        if lock is None:
            self._look_at_holder()
            return
        self._others_target = ""
        try:
            self._n_early = _n_early(lock)
            if not _is_in_pause(lock, self._n_early):
                self._begin(lock)
        finally:
            os.close(lock)  # the process has its own

    def _look_at_holder(self) -> None:
        """Say so if our database gets nothing, as another server has the log; none ever may."""
        holder = holder_of(self._path)
        target = holder.target if holder and holder.target != self._target else ""
        if target and target == self._others_target:  # twice: it is not just being signed
            self._tell(f"is another server's: {holder}, so that {self._target} {STARVES}")
        self._others_target = target

    def _begin(self, lock: int) -> None:
        sign(lock, self._target)
        _write_n_early(lock, self._n_early + 1)  # until it has lived for a while
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(lock)],
            env=os.environ | self._task.as_environment() | path,
            stdin=subprocess.PIPE,
            pass_fds=[lock],  # and nothing else, no socket of the server
            start_new_session=True,  # Ctrl-C is for the server, which then ends it
        )
        with suppress(OSError):  # it has ended already
            _give_way(self._process.pid)  # from its first moment on: its start takes most of all

    def _note_end(self, status: int) -> None:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        lived_s = time.monotonic() - self._began_s
        if lived_s >= (LONG_START_S if status > 0 else EARLY_S):
            self._told = ""
            self._tell(f"{how}, another follows")
        elif self._n_early == 0:
            pauses = f"another follows, after pauses of up to {LONGEST_PAUSE_S:.0f} s"
            self._tell(f"{how} {lived_s:.1f} s after its start, {pauses}")

    def _tell(self, what: str) -> None:
        if what != self._told:
            logger.error("the shipper of %s %s", self._path, what)
            self._told = what


def _task_of(settings: "LogSettings") -> Task:
    path, address = settings.log_path, settings.database
    if path is None or address is None:
        raise ContractError("DATABASE_URL is not set, expected where the log is to be delivered.")
    return Task(path.absolute(), address, settings.prediction_log_keep_days)


def _give_way(pid: int) -> None:
    """Let a process that we start have what answers leave of the processors."""
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, 19)
    os.setpriority(os.PRIO_PROCESS, pid, nice)


def _n_early(lock: int) -> int:
    """Read how many processes in a row have failed at their start; all workers count together."""
    digits = os.pread(lock, N_EARLY_BYTES, 0)
    return int(digits) if digits.isdigit() else 0


def _write_n_early(lock: int, n: int) -> None:
    with suppress(OSError):  # the disk is full; the delivery may empty it
        os.pwrite(lock, b"%04d" % min(n, 9999), 0)


def _is_in_pause(lock: int, n_early: int) -> bool:
    """Say whether the last start is too recent, after so many that failed, for another."""
    since_s = time.time() - os.fstat(lock).st_mtime
    pause_s = min(LOOK_S * 2 ** min(n_early - 1, 10), LONGEST_PAUSE_S)
    return n_early > 0 and 0 <= since_s < pause_s


def main() -> None:
    """Deliver until the pipe from whoever started this closes, or a signal comes.

    The number of a descriptor that holds the lock may be given; else the lock is taken here.
    """
    log_to_stderr("INFO")
    sys.excepthook = lambda *error: logger.critical("the shipper fails", exc_info=error)
    try:
        if sys.argv[1:]:
            task, lock = Task.from_environment(), int(sys.argv[1])
        else:
            task, lock = _begin_by_hand()
        _set_level(os.environ.get("LOG_LEVEL") or "INFO")
    except ContractError as error:
        logger.error("%s", error)
        raise SystemExit(1) from error
    sign(lock, task.database.name)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for watch in (partial(_await_end, stop), partial(_await_success, lock)):
        threading.Thread(target=watch, daemon=True).start()
    deliver(task, stop)


def _begin_by_hand() -> tuple[Task, int]:
    """Give what a Keeper otherwise gives: the task, and a descriptor that holds the lock."""
    from contract.predictions.settings import LogSettings  # see Task.from_environment
    from contract.settings import read_settings

    os.nice(NICE)
    task = _task_of(read_settings(LogSettings))
    lock = take_lock(task.log_path)
    if lock is None:
        holder = holder_of(task.log_path)
        told = f" ({holder})" if holder else ""
        raise ContractError(
            f"{task.log_path}: another process delivers it already{told}. "
            "End it first to deliver from here."
        )
    return task, lock


def _set_level(level: str) -> None:
    if level not in LEVELS:
        raise ContractError(f"LOG_LEVEL is {level!r}, expected one of {', '.join(LEVELS)}.")
    logging.root.setLevel(level)


def _await_end(stop: threading.Event) -> None:
    """Wait until the pipe is closed, and then not for ever: a database may hang."""
    while os.read(0, 1024):
        pass
    stop.set()
    time.sleep(END_S)
    os._exit(0)  # what is not noted as delivered will be sent again


def _await_success(lock: int) -> None:
    time.sleep(EARLY_S)
    _write_n_early(lock, 0)


def deliver(task: Task, stop: threading.Event) -> None:
    """Deliver a log to its database, until told to stop."""
    outbox = Outbox(task.log_path, task.database.name)
    database = Database(task.database)
    delivery = Delivery(outbox, database, task.keep_days)
    logger.info("%s is delivered to %s from now on", task.log_path, task.database.name)
    delivery.run(stop)
    delivery.drain(DRAIN_S)
    database.close()
    outbox.close()


if __name__ == "__main__":
    main()
