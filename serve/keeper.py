"""What keeps processes alive that deliver the prediction log: one at work, one ready to follow.

Each worker has a Keeper, which tries for the place of the next in line; who gets it starts a
process (see serve.shipper) and hands the place over. The process gives the place up once the log is
its own to deliver, whereupon a Keeper starts the next. When a process ends, however it does, the
kernel frees what it held; when a worker ends, the pipe to its processes closes, and they end, too.
"""

import logging
import math
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from contract.predictions.settings import LogSettings
from contract.predictions.turn import (
    holder_of,
    n_failures,
    note_failures,
    take_lock,
    take_place,
)
from serve.shipper import EARLY_S, END_S, NICE, Task

ROOT = Path(__file__).parents[1]
LOOK_S = 0.5
LONG_START_S = 10.0  # one that fails later did not fail at its start, also on a busy machine
LONGEST_PAUSE_S = 5.0  # between two that did
CALM_S = 2.0  # without a next in line, while one is at work: to start it takes from answers
STARVES = "gets no rows. Give each server a PREDICTION_LOG of its own."

logger = logging.getLogger(__name__)


class _Process(NamedTuple):
    """A process that this worker has started."""

    running: subprocess.Popen
    began_s: float
    n_failures: int  # of those before it


class Keeper:
    """Keeps processes alive that deliver the log, together with those of other workers."""

    def __init__(self, settings: LogSettings) -> None:
        """Take settings with a log and a database."""
        self._task = Task.of(settings)
        self._path = self._task.log_path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="shipper", daemon=True)
        self._processes: list[_Process] = []
        self._free_since_s = math.inf  # the place
        self._has_waited = False  # for others to take a place that was free
        self._told = ""
        self._target = self._task.database.name
        self._others_target = ""  # to which another server delivers this log

    def start(self) -> None:
        """Begin to look after it; called in each worker, after the fork."""
        self._thread.start()

    def close(self) -> None:
        """Let those that this worker has started deliver what is left, and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for each in self._processes:
            each.running.stdin.close()
        for each in self._processes:
            with suppress(subprocess.TimeoutExpired):  # somebody has frozen it
                each.running.wait(2 * END_S)

    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except OSError as error:
                self._tell(f"no shipper can be started: {error}")
            self._stop.wait(LOOK_S)

    def _look(self) -> None:
        """Part with those that have ended, and start one if nobody is next in line."""
        for each in [each for each in self._processes if each.running.poll() is not None]:
            self._processes.remove(each)
            each.running.stdin.close()
            self._note_end(each)
        place = take_place(self._path)
        if place is None:
            self._free_since_s, self._has_waited = math.inf, False
            self._look_at_holder()
            return
        self._free_since_s = min(self._free_since_s, time.monotonic())
        try:
            n = n_failures(place)
            if self._has_to_start() and not _is_in_pause(place, n):
                note_failures(place, n + 1)  # until it has lived for a while
                self._processes.append(_Process(self._begin(place), time.monotonic(), n))
        finally:
            os.close(place)  # the process has its own

    def _has_to_start(self) -> bool:
        """Say whether it is time for a process, and for one of ours.

        With one at work there is no hurry: what has ended the other, such as the death of a worker,
        takes from answers already.
        """
        is_time = time.monotonic() - self._free_since_s >= CALM_S or not self._is_delivered()
        return is_time and not self._lets_others_first()

    def _lets_others_first(self) -> bool:
        """Leave the place for one look to workers with no process: none is to take both along."""
        self._has_waited = bool(self._processes) and not self._has_waited
        return self._has_waited

    def _look_at_holder(self) -> None:
        """Say so if our database gets nothing, as another server has the log; none ever may.

        Twice the same: it is not just being signed.
        """
        holder = holder_of(self._path)
        target = holder.target if holder and holder.target != self._target else ""
        if target and target == self._others_target and self._is_delivered():
            self._tell(f"{holder}, so that {self._target} {STARVES}")
        self._others_target = target

    def _is_delivered(self) -> bool:
        """Say whether somebody does so now; the signature of who did so last stays."""
        lock = take_lock(self._path)
        if lock is not None:
            os.close(lock)  # who waits for it tries again
        return lock is None

    def _begin(self, place: int) -> subprocess.Popen:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        process = subprocess.Popen(
            [sys.executable, "-m", "serve.shipper", str(place)],
            env=os.environ | self._task.as_environment() | path,
            stdin=subprocess.PIPE,
            pass_fds=[place],  # and nothing else, no socket of the server
            start_new_session=True,  # Ctrl-C is for the server, which then ends it
        )
        with suppress(OSError):  # it has ended already
            _give_way(process.pid)  # from its first moment on: its start takes most of all
        return process

    def _note_end(self, ended: _Process) -> None:
        status = ended.running.returncode
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        lived_s = time.monotonic() - ended.began_s
        if lived_s >= (LONG_START_S if status > 0 else EARLY_S):
            self._told = ""
            self._tell(f"a shipper {how}, another follows")
        elif ended.n_failures == 0:
            next_one = f"another follows, after up to {LONGEST_PAUSE_S:.0f} s if that fails at once"
            self._tell(f"a shipper {how} {lived_s:.1f} s after its start, {next_one}")

    def _tell(self, what: str) -> None:
        if what != self._told:
            logger.error("%s: %s", self._path, what)
            self._told = what


def _give_way(pid: int) -> None:
    """Let a process that we start have what answers leave of the processors."""
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, 19)
    os.setpriority(os.PRIO_PROCESS, pid, nice)


def _is_in_pause(place: int, n_failures: int) -> bool:
    """Say whether the last start is too recent, after so many that failed, for another."""
    since_s = time.time() - os.fstat(place).st_mtime
    pause_s = min(LOOK_S * 2 ** min(n_failures - 1, 10), LONGEST_PAUSE_S)
    return n_failures > 0 and 0 <= since_s < pause_s
