"""Real gunicorn processes on free ports, started as `make serve` does."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.example import ROOT

START_S = 30
OTHERS_SETTINGS = (
    *("HOST", "PORT", "WORKERS", "THREADS", "PREDICTION_LOG", "PROMETHEUS"),
    *("DATABASE_URL", "DB_", "METRICS_TOKEN", "MONITOR"),
)


@dataclass(frozen=True)
class Server:
    """A running server, its model's folder and its prediction log."""

    process: subprocess.Popen
    port: int
    model_folder: Path
    log_path: Path
    output: Path  # all that it logged

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request, POST if there is a body; give status, headers, body."""
        request = Request(self.url + path, body, headers or {})
        try:
            with urlopen(request, timeout=60) as response:
                return response.status, dict(response.headers), response.read()
        except HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def ask_json(self, path: str, sent: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"}
        status, _, body = self.ask(path, json.dumps(sent).encode(), headers)
        return status, json.loads(body)

    def logged(self) -> list[dict[str, Any]]:
        """Give the rows of the prediction log, in the order of their ids."""
        with closing(sqlite3.connect(self.log_path)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute("SELECT * FROM predictions ORDER BY id").fetchall()
        return [dict(row) | {"features": json.loads(row["features"])} for row in found]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_gunicorn(folder: Path, output: Path, port: int, **environment: str) -> subprocess.Popen:
    kept = {key: v for key, v in os.environ.items() if not key.startswith(OTHERS_SETTINGS)}
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "MODEL_FOLDER": str(folder),
        "MODEL_POLL_S": "0.1",
    }
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "python:serve.gunicorn_conf"],
            cwd=ROOT,
            env=kept | settings | environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


@contextmanager
def running(folder: Path, place: Path, **environment: str) -> Iterator[Server]:
    """Run a server of the model in `folder`, its log in `place`, until the block ends."""
    port, output, log_path = free_port(), place / "output.log", place / "predictions.db"
    report = str(place / "monitor.json")
    environment = {"PREDICTION_LOG": str(log_path), "MONITOR_REPORT": report} | environment
    process = start_gunicorn(folder, output, port, **environment)
    server = Server(process, port, folder, log_path, output)
    try:
        wait_until_ready(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if server.ask("/ready")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{server.output.read_text('utf-8')}")
