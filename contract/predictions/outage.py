"""A time in which the log cannot be written: said when it begins and when it is over."""

import logging
import re
import time
from pathlib import Path

logger = logging.getLogger(__name__)


class Outage:
    """Counts what fails, so that the server's own log is not full of it, least on a full disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began_s = time.monotonic()
        self._n_failures = 0
        self._told: set[str] = set()

    def note(self, n_failures: int, why: str) -> None:
        """Say why, unless this has been said; other numbers make it no other reason."""
        self._n_failures += n_failures
        kind = re.sub(r"\d+", "", why)
        if kind not in self._told:
            self._told.add(kind)
            logger.error("%s Until then nothing is answered.", why)

    def end(self) -> None:
        logger.warning(
            "%s: rows are logged again, after %.1f s and %d appends that failed.",
            *(self._path, time.monotonic() - self._began_s, self._n_failures),
        )
