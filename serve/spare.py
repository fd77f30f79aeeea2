"""Work that lets others have the processors first."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

NICE = 10  # with 19 it might take seconds beside a busy program, with SCHED_IDLE for ever


def in_spare_time(work: Callable[[], object]) -> None:
    """Do work in a thread that gives way to all others of the machine, and wait for its end.

    In a thread, since a process may not take back that it gives way. It may hold no lock for which
    another process waits, and start no thread: that would give way, too.
    """
    failed = []

    def give_way_and_work() -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            work()
        except BaseException as error:  # noqa: BLE001, raised below
            failed.append(error)

    thread = threading.Thread(target=give_way_and_work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
