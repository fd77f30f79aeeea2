"""Whose turn it is to deliver a log: one process at a time, and anybody can see which."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

N_EARLY_BYTES = 4  # at the start of the lock, for who keeps the process alive


class Holder(NamedTuple):
    """A process that delivers a log."""

    pid: int
    target: str

    def __str__(self) -> str:
        return f"process {self.pid} delivers it to {self.target}"


def take_lock(path: Path) -> int | None:
    """Give a descriptor that holds the right to deliver this log; None while another has it.

    The right ends with the last process that holds the descriptor, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(f"{path}-shipper", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def sign(lock: int, target: str) -> None:
    """Write down who has the lock, for those who want it."""
    with suppress(OSError):  # the disk is full; the delivery may empty it
        os.ftruncate(lock, N_EARLY_BYTES)
        os.pwrite(lock, f"{os.getpid()} {target}".encode(), N_EARLY_BYTES)


def holder_of(path: Path) -> Holder | None:
    """Say who has, or had last, the right to deliver this log; None if nobody has signed."""
    try:
        with Path(f"{path}-shipper").open("rb") as file:
            pid, _, target = file.read()[N_EARLY_BYTES:].decode().partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    return Holder(int(pid), target) if pid.isdigit() and target else None
