"""Work in spare time gives way to all others, and nobody else does by it."""

import os
import threading

import pytest

from serve.spare import NICE, in_spare_time


def test_only_the_thread_that_works_gives_way():
    found = []

    def work() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    in_spare_time(work)

    assert found == [NICE]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_what_fails_in_spare_time_fails_for_who_waits():
    with pytest.raises(ZeroDivisionError):
        in_spare_time(lambda: 1 // 0)
