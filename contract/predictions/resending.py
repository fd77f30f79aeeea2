"""Rows that a target had and may have lost, such as by a restore: all that the log still holds."""

from datetime import datetime
from pathlib import Path

from contract.predictions.file import as_logged
from contract.predictions.outbox import TABLES, Outbox
from contract.predictions.pruning import ALL


class Resending(Outbox):
    """Gives what was delivered once more, and leaves the record of what was delivered alone.

    So it works beside the process that delivers; what arrives twice is kept once. Contracts are
    few and all given, rows and truths from a time on.
    """

    def __init__(self, path: Path, target: str, since: datetime | None = None) -> None:
        super().__init__(path, target)
        self._since = as_logged(since) if since else ""

    def save(self) -> None:
        """Write nothing down: it begins anew where it is interrupted."""

    def set_apart(self, table: str, seq: int, error: str) -> None:
        self.delivered(table, seq)

    def _open(self) -> None:
        super()._open()
        self._cursors = {table: self._before(table) for table in TABLES if self._connection}

    def _before(self, table: str) -> int:
        """Give the last row before those to send."""
        if table == "models":
            return 0
        query = f"SELECT coalesce(min(seq) - 1, {ALL}) FROM {table} WHERE time >= ?"  # noqa: S608
        return self._connection.execute(query, (self._since,)).fetchone()[0]
