"""The server's own log is told without harm to those who have something to tell."""

import errno
import io
import logging
import sys

import pytest

from serve.logs import GatheredLines, JsonLines


class Full(io.StringIO):
    """A file on a disk without room."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def handler() -> GatheredLines:
    handler = GatheredLines()
    handler.setFormatter(JsonLines())
    return handler


def tell(handler: GatheredLines, message: str) -> None:
    record = logging.makeLogRecord({"msg": message, "levelno": logging.ERROR})
    handler.handle(record)


def test_full_disk_fails_nobody_who_tells_something(handler, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Full())
        tell(handler, "while it is full")
    tell(handler, "once there is room")

    assert '"message":"once there is room"' in capsys.readouterr().err
