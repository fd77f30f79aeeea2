"""Damage to the files of a log while it is open, and how what is left of them is kept.

SQLite does not notice that its file has been cut: it goes on with what it remembers, and copies
into the gap. So whoever writes looks at the files once it has the right to write, and who sets
them aside holds that right, too: no row is committed to files that have lost their name.
"""

import fcntl
import logging
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from contract.predictions.wal import NOTHING_SEEN, WalPages, pages_in

NOT_KNOWN = sys.maxsize  # bytes of a file that has only been opened
BYTES_A_BLOCK = 512  # as POSIX counts what a file takes
RECOVER = "python -m ops.predictions recover"

logger = logging.getLogger(__name__)


class Files(NamedTuple):
    """What tells the files of a log from others that have taken their place, and from a part."""

    device: int
    main: int  # inode
    wal: int  # inode, 0 if there is none
    n_bytes: int  # of the main file


def files_at(path: str) -> Files | None:
    """Look at the files of a log, for each append and hence quickly; None if there is none."""
    try:
        main = os.stat(path)  # noqa: PTH116, a Path takes twice as long
    except FileNotFoundError:
        return None
    try:
        wal = os.stat(path + "-wal").st_ino  # noqa: PTH116
    except FileNotFoundError:
        wal = 0
    return Files(main.st_dev, main.st_ino, wal, main.st_size)


def is_emptied(found: Files | None) -> bool:
    """Say whether only the WAL of a log is left, which SQLite deletes when it opens the log.

    A log has its tables in the main file before it has a WAL.
    """
    return found is not None and found.n_bytes == 0 and found.wal != 0


def is_cut(
    connection: sqlite3.Connection, path: Path, n_bytes: int, seen: WalPages = NOTHING_SEEN
) -> bool:
    """Say whether a main file of this size has lost pages; called within a transaction that writes.

    Pruning cuts the file as well, and checkpoints let it grow, so no two sizes tell. But a page
    behind the end of the file has to be in the WAL, which nobody begins anew meanwhile. What was
    seen of a long WAL before the transaction spares those who wait for its end.
    """
    if n_bytes == 0:
        return True
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    (n_pages,) = connection.execute("PRAGMA page_count").fetchone()
    behind = set(range(n_bytes // page_size + 1, n_pages + 1))
    return bool(behind) and not behind <= pages_in(Path(f"{path}-wal"), seen).pages


def n_bytes_missing(path: str) -> int:
    """Give how much of a file has no place on the disk: holes, as a cut leaves if it grows again.

    Some disks compress, and have less for any file.
    """
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return 0
    return max(0, found.st_size - BYTES_A_BLOCK * found.st_blocks)


def has_lost_pages(connection: sqlite3.Connection) -> bool:
    """Look at all pages that hold rows or lead to them; takes a second for some 100 MiB."""
    try:
        return connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",)
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT


def set_aside(path: Path, inode: int) -> None:
    """Keep what is left of a damaged log, unless another process has done so; a new one follows."""
    with _alone_with(path):
        found = files_at(str(path))
        if found and found.main == inode:
            _set_aside(path)


def make_file(path: Path) -> Files:
    """Make an empty file if there is no log; one that is there is not opened.

    To close it again would part with all locks that this process has on it, as POSIX has it. What
    is left of a log that was emptied or taken away is set aside: SQLite would delete its WAL.
    """
    found = files_at(str(path))
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    while found is None or is_emptied(found):
        with _alone_with(path):
            found = files_at(str(path))
            if found is None or is_emptied(found):
                _set_aside(path)
                os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))  # features may be personal
                found = files_at(str(path))
    return found


@contextmanager
def _alone_with(path: Path) -> Iterator[None]:
    """Keep other processes from moving or making the files meanwhile."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _set_aside(path: Path) -> None:
    """Rename the files; the WAL in a way that keeps SQLite from opening, and deleting, it."""
    aside = Path(f"{path}.damaged-{time.time_ns()}")
    names = {path: aside, Path(f"{path}-wal"): Path(f"{aside}.wal")}
    kept = [name for name in names if name.exists()]
    with suppress(FileNotFoundError):  # somebody deletes them at this moment
        for name in kept:
            name.rename(names[name])
    shm = Path(f"{path}-shm")
    if shm.exists():
        shm.unlink(missing_ok=True)
    if kept:
        logger.error(
            "%s was damaged: what is left is now %s, and a new log is begun. "
            "`%s %s` brings back what can still be read.",
            *(path, aside, RECOVER, aside),
        )


def files_aside(path: Path) -> list[Path]:
    """Give what was set aside of a log and not recovered since, oldest first."""
    name = re.compile(rf"({re.escape(path.name)}\.damaged-\d+)(\.wal)?")
    with suppress(FileNotFoundError):
        found = {match[1] for each in path.parent.iterdir() if (match := name.fullmatch(each.name))}
        return [path.with_name(each) for each in sorted(found)]
    return []
