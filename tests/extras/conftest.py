"""What tests of the optional libraries share: a stage's folder, and a real MLflow server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from contract.champion import CHAMPION
from contract.rows import write_rows
from stages import evaluate, tune
from tests.example import make_rows, write_params

SERVER_WITHIN_S = 180  # its database alone takes 10 s to make, and tests share the machine


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """The current folder, with the small example's params and rows, and without settings."""
    monkeypatch.chdir(tmp_path)
    write_params()
    write_rows(make_rows(120), tune.TRAIN_ROWS)
    write_rows(make_rows(60, seed=1), evaluate.TEST_ROWS)
    CHAMPION.write_text("{}")
    Path("models").mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with patch.dict(os.environ, kept, clear=True):  # undoes what a stage reads from .env
        yield tmp_path


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of an MLflow server on sqlite that keeps models in a folder of its own."""
    place, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}"]
    stores = [f"--backend-store-uri=sqlite:///{place}/runs.db", f"--artifacts-destination={place}"]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *stores, "--workers=1"],
            env=os.environ | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, place / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return unused.getsockname()[1]


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    give_up = time.monotonic() + SERVER_WITHIN_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(f"no MLflow server:\n{log.read_text()}")
