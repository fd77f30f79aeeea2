"""A folder with a prediction log, the commands on it, and a database beside it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.predictions.log import PredictionLog
from contract.predictions.settings import LogSettings
from ops.predictions.__main__ import main
from tests.logged import deliver, describe
from tests.postgres import FreshDatabase

ROOT = Path(__file__).parents[3]
SETTINGS = [*(name.upper() for name in LogSettings.model_fields), "MODEL_FOLDER"]


@dataclass(frozen=True)
class Told:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """Go to an empty folder and give where its log is to be."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREDICTION_LOG", "predictions.db")
    return tmp_path / "predictions.db"


@pytest.fixture
def log(path) -> Iterator[PredictionLog]:
    with closing(PredictionLog(path)) as log:
        describe(log)
        yield log


@pytest.fixture(params=["file", "database"])
def place(request, path):
    """Let the commands look into the file, or into a database that has all of it."""
    if request.param == "file":
        return lambda: None
    database = request.getfixturevalue("database")
    return lambda: deliver(path, database.url)


@pytest.fixture
def ops(path, capsys) -> Callable[..., Told]:
    """Give what runs `python -m ops.predictions` with arguments."""

    def run(*arguments: object) -> Told:
        capsys.readouterr()
        code, last_words = 0, ""
        try:
            main([str(each) for each in arguments])
        except SystemExit as end:
            is_text = isinstance(end.code, str)
            code, last_words = (1, f"{end.code}\n") if is_text else (int(end.code or 0), "")
        out, err = capsys.readouterr()
        return Told(code, out, err + last_words)

    return run


@pytest.fixture
def database(path, postgres, monkeypatch) -> FreshDatabase:
    """Give an empty database, to which the log is to be delivered."""
    monkeypatch.setenv("DATABASE_URL", postgres.url)
    return postgres


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch) -> None:
    """Let no width of whoever runs the tests shorten a line."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def start(path) -> Callable[..., subprocess.Popen]:
    """Give what starts the program itself, for what only a process shows."""

    def run(*arguments: str, **settings: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "ops.predictions", *arguments],
            cwd=ROOT,
            env=os.environ | {"PREDICTION_LOG": str(path)} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run
