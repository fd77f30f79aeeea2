"""The server's own log is told without harm to those who have something to tell."""

import errno
import io
import json
import logging
import sys
from pathlib import Path

import pytest

from serve.logs import GatheredLines, JsonLines, as_json


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


def test_line_is_the_same_whether_or_not_pydantic_is_loaded(monkeypatch):
    line = {"message": 'ü "quoted"\n', "ms": 1.5, "n": 3, "client": None, "path": Path("a/b")}
    by_pydantic = as_json(line)
    monkeypatch.delitem(sys.modules, "pydantic_core")

    assert as_json(line) == by_pydantic
    assert json.loads(by_pydantic) == line | {"path": "a/b"}


def test_full_disk_fails_nobody_who_tells_something(handler, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Full())
        tell(handler, "while it is full")
    tell(handler, "once there is room")

    assert '"message":"once there is room"' in capsys.readouterr().err
