"""Whose turn it is to deliver a log: one process at a time, and anybody can see which.

One more may wait for its turn, in a place that only one can have. Both rights are locks of the
kernel, which end with the last process that holds the descriptor, however that ends.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Holder(NamedTuple):
    """A process that delivers a log."""

    pid: int
    target: str

    def __str__(self) -> str:
        return f"process {self.pid} delivers it to {self.target}"


def take_lock(path: Path) -> int | None:
    """Give a descriptor that holds the right to deliver this log; None while another has it."""
    return _lock(_signed(path))


def take_place(path: Path) -> int | None:
    """Give a descriptor that holds the place of who delivers next; None while another has it."""
    return _lock(_place(path))


def still_has_lock(lock: int, path: Path) -> bool:
    """Say whether the right is still ours: who removes its file lets another have it as well."""
    return _is_at(lock, _signed(path))


def still_has_place(place: int, path: Path) -> bool:
    return _is_at(place, _place(path))


def _lock(path: Path) -> int | None:
    while True:
        lock = _open(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if _is_at(lock, path):
            return lock
        os.close(lock)  # it was removed at this moment


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def sign(lock: int, target: str) -> None:
    """Write down who has the lock, for those who want it."""
    _write(lock, f"{os.getpid()} {target}")


def holder_of(path: Path) -> Holder | None:
    """Say who has, or had last, the right to deliver this log; None if nobody has signed."""
    try:
        pid, _, target = _signed(path).read_bytes().decode().partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    return Holder(int(pid), target) if pid.isdigit() and target else None


def note_failures(place: int, n: int) -> None:
    """Write down how many processes in a row have failed in this place."""
    _write(place, str(n))


def n_failures(place: int) -> int:
    """Say how many processes in a row have failed in this place, those of all workers together."""
    digits = os.pread(place, 20, 0)
    return int(digits) if digits.isdigit() else 0


def _signed(path: Path) -> Path:
    return Path(f"{path}-shipper")


def _place(path: Path) -> Path:
    return Path(f"{path}-shipper-next")


def _write(lock: int, text: str) -> None:
    with suppress(OSError):  # the disk is full; the delivery may empty it
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode(), 0)
