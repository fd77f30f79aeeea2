"""Copies the WAL of a log into its file now and then, in a thread: no request waits for the disk.

SQLite begins the WAL anew once all of it has been copied, which never comes about where writers
never pause; so when it is long, its last pages are copied while nobody else in the process writes.
"""

import logging
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

from contract.predictions.damage import (
    NOT_KNOWN,
    Files,
    files_at,
    has_lost_pages,
    n_bytes_missing,
)
from contract.predictions.file import checkpoint, connect, lay_ballast

logger = logging.getLogger(__name__)

CHECKPOINT_PAGES, LONG_WAL_PAGES = 4_000, 16_000  # of 4 KiB
PAGES_A_COMMIT, ROWS_A_PAGE = 3, 8  # about, for rows of some 400 bytes


class Copying:
    """When to copy, and what a copy may hide: for one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.has_lost_pages = False  # the file that is open, as was found after a copy
        self._path = path
        self._file = str(path)
        self._holes_tell = True  # of lost pages; not on a disk that compresses
        self._thread: threading.Thread | None = None
        self._n_pages = 0  # written since the last copy
        self._wal_is_long = False

    def plan(self, n_rows: int, files: Files) -> None:
        """Take note of rows that were committed to these files, and copy if there are many."""
        self._n_pages += PAGES_A_COMMIT + n_rows // ROWS_A_PAGE
        if self._thread and self._thread.is_alive():
            return
        if self._wal_is_long:
            self._wal_is_long = False
            self._copy("FULL")
        elif self._n_pages >= CHECKPOINT_PAGES:
            self._n_pages = 0
            thread = threading.Thread(target=self.run, args=(files,))
            try:
                thread.start()
            except RuntimeError as error:  # the rows are safe in the WAL; a later one may start
                logger.warning("%s: its WAL could not be copied into it, %s", self._path, error)
            else:
                self._thread = thread

    def wait(self) -> None:
        if self._thread:
            self._thread.join()

    def run(self, files: Files) -> None:
        found = files_at(self._file)
        if found is None or found.n_bytes < files.n_bytes != NOT_KNOWN:
            return  # a copy would make it as long as before; the next append looks at it
        lay_ballast(self._path)
        if self._copy("PASSIVE") > LONG_WAL_PAGES:
            self._copy("PASSIVE")  # what came meanwhile, which leaves little to the writer
            self._wal_is_long = True

    def _copy(self, mode: str) -> int:
        """Copy the WAL; a file that is cut at this moment grows again, which leaves a hole."""
        n_missing = n_bytes_missing(self._file)
        n_pages = checkpoint(self._path, mode)
        if self._holes_tell and n_bytes_missing(self._file) > n_missing:
            with suppress(sqlite3.Error), closing(connect(self._path, read_only=True)) as log:
                self._holes_tell = self.has_lost_pages = has_lost_pages(log)
        return n_pages
