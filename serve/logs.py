"""The server's own log: one JSON object a line, without tokens and without values of features."""

import logging
import sys
from datetime import UTC, datetime

from pydantic_core import to_json

ACCESS = "serve.access"


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
        return to_json(line, fallback=str).decode()


def log_to_stderr(level: str) -> None:
    """Let this process tell all that it logs as JSON lines; called by whoever starts a server."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
