"""The server's own log: one JSON object a line, without tokens and without values of features."""

import json
import logging
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

ACCESS = "serve.access"
WRITE_EVERY_S = 0.2


class JsonLines(logging.Formatter):
    """Write a record as one line of JSON; what it was given as `facts` becomes keys of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return as_json(line)


def as_json(line: dict[str, Any]) -> str:
    """Write it as pydantic does, in a third of the time of json; who has not loaded it need not.

    To load it takes as long as to write ten thousand lines.
    """
    core = sys.modules.get("pydantic_core")
    if core is not None:
        return core.to_json(line, fallback=str).decode()
    return json.dumps(line, default=str, ensure_ascii=False, separators=(",", ":"))


class GatheredLines(logging.Handler):
    """Writes to stderr what has gathered in 0.2 s, all at once; a warning takes it along at once.

    A write for each line costs a request more than its prediction: it parts with the interpreter's
    lock, for which the other threads then queue. A process that is killed loses the last 0.2 s, and
    what finds a full disk may be lost: no answer fails for it, nor the loop of a worker.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._writer: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))
        if self._writer is None or record.levelno >= logging.WARNING:
            self.flush()

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            with suppress(OSError):
                sys.stderr.write("\n".join([*lines, ""]))
                sys.stderr.flush()

    def gather(self) -> None:
        """Begin to gather; called in each worker, after the fork."""
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def _write(self) -> None:
        while True:
            time.sleep(WRITE_EVERY_S)
            with self.lock:
                self.flush()


def log_to_stderr(level: str) -> None:
    """Let this process tell all that it logs as JSON lines; called by whoever starts a server."""
    logging._srcfile = None  # what no line tells need not be found out
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = GatheredLines()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
