"""Running servers, what they cost, and clients of every kind that ask them."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from contract.artifact import read_manifest
from serve.example import example_row

ROOT = Path(__file__).parents[1]
PYTHON = str(ROOT / ".venv-serve/bin/python")  # which holds what the server needs, and no more
OUR_SETTINGS = ("--config", "python:serve.gunicorn_conf")
CONSTANT = "benchmarks.constant_app:app"
START_S = 60
POLL_S = 0.003
WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[BODY]==]
function done(summary, latency)
  local failed = 0
  for _, n in pairs(summary.errors) do failed = failed + n end
  io.write(string.format('\\n{"n_requests": %d, "seconds": %f, "p99_ms": %f, "n_failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(99) / 1e3, failed))
end
"""


@dataclass(frozen=True)
class Server:
    """A running gunicorn with its workers."""

    process: subprocess.Popen
    port: int
    start_s: float  # until its first answer
    log_path: Path

    def cpu_s(self) -> float:
        """Give the CPU time that all its processes have taken so far."""
        times = [each.cpu_times() for each in self._processes()]
        return sum(each.user + each.system for each in times)

    def memory_mb(self) -> float:
        """Give its memory; what processes share is counted once (PSS)."""
        return sum(each.memory_full_info().pss for each in self._processes()) / 2**20

    def _processes(self) -> list[psutil.Process]:
        master = psutil.Process(self.process.pid)
        return [master, *master.children(recursive=True)]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=60)


@dataclass(frozen=True)
class Load:
    """What wrk found."""

    n_requests: int
    seconds: float
    p99_ms: float
    n_failed: int


@contextmanager
def serving(*arguments: str, **settings: str) -> Iterator[Server]:
    """Run gunicorn with these arguments on a free port until the block ends."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        port, log_path = _free_port(), Path(folder) / "predictions.db"
        output = stack.enter_context((Path(folder) / "output.log").open("w+"))
        environment = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "PREDICTION_LOG": str(log_path),
            "LOG_LEVEL": "INFO",
            "WORKERS": "2",
            "THREADS": "4",
        }
        began = time.perf_counter()
        process = subprocess.Popen(
            [PYTHON, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *arguments],
            cwd=ROOT,
            env=os.environ | environment | settings,
            stdout=output,
            stderr=output,
        )
        try:
            _wait_until_up(process, port, output.name)
            yield Server(process, port, time.perf_counter() - began, log_path)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_until_up(process: subprocess.Popen, port: int, output: str) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            ask(port, "/health")
        except OSError:
            time.sleep(POLL_S)
        else:
            return
    raise RuntimeError(f"the server did not start:\n{Path(output).read_text()}")


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request("POST" if body else "GET", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def row_as_json() -> bytes:
    """Give a row that fits the contract of the exported model."""
    return json.dumps(example_row(read_manifest().contract)).encode()


def load_with_wrk(
    port: int, n_connections: int, seconds: float, body: bytes, path: str = "/predict"
) -> Load:
    """Let wrk post over kept connections, each one request after the other."""
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is missing, which makes the load: sudo apt-get install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT.replace("BODY", body.decode()))
        script.flush()
        options = f"-t1 -c{n_connections} -d{seconds}s --timeout 10s".split()
        url = f"http://127.0.0.1:{port}{path}"
        command = ["wrk", *options, "--script", script.name, url]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return Load(**json.loads(told.splitlines()[-1]))


def cost_of_a_request(
    server: Server, n_connections: int, seconds: float, body: bytes, path: str = "/predict"
) -> tuple[float, float, float]:
    """Give the CPU ms of one request, the p99 of the answers' ms, and requests a second."""
    before_s = server.cpu_s()
    load = load_with_wrk(server.port, n_connections, seconds, body, path)
    if load.n_failed:
        raise RuntimeError(f"{path}: {load.n_failed} of {load.n_requests} requests failed")
    cpu_ms = 1000 * (server.cpu_s() - before_s) / load.n_requests
    return cpu_ms, load.p99_ms, load.n_requests / load.seconds


def load_until_shed(
    port: int, n_clients: int, seconds: float, body: bytes
) -> list[tuple[int, float]]:
    """Post over so many kept connections at once; give the status of each answer, and its seconds.

    wrk does not tell the times of accepted requests from those of others.
    """
    return asyncio.run(_load(port, n_clients, seconds, body))


async def _load(port: int, n_clients: int, seconds: float, body: bytes) -> list[tuple[int, float]]:
    end = time.perf_counter() + seconds
    found = await asyncio.gather(*(_ask_on(port, end, body) for _ in range(n_clients)))
    return [answer for answers in found for answer in answers]


async def _ask_on(port: int, end: float, body: bytes) -> list[tuple[int, float]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    sent = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
    answers = []
    while (began := time.perf_counter()) < end:
        writer.write(sent)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
        await reader.readexactly(int(length))
        answers.append((int(answer[9:12]), time.perf_counter() - began))
    writer.close()
    await writer.wait_closed()
    return answers


@contextmanager
def slow_clients(port: int, n_clients: int, begun: bytes) -> Iterator[None]:
    """Hold connections on which a request has begun to come."""
    with ExitStack() as stack:
        for _ in range(n_clients):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(begun)
        yield


def times_of(port: int, path: str, seconds: float, body: bytes | None = None) -> list[float]:
    """Ask again and again, each time over a new connection; give the seconds of each answer."""
    times, end = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        status, _ = ask(port, path, body)
        if status != 200:
            raise RuntimeError(f"{path} answered {status}, expected 200")
        times.append(time.perf_counter() - began)
        time.sleep(0.01)
    return times


def p99(values: list[float]) -> float:
    return float(np.percentile(values, 99))


def answered_until_the_end(port: int, body: bytes) -> dict[str, Any]:
    """Post over one kept connection until the server ends it; tell the ids, and what was lost."""
    connection, ids, n_lost = HTTPConnection("127.0.0.1", port, timeout=60), [], 0
    connection.connect()
    is_open = True
    while is_open:
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            ids.append(json.loads(response.read())["id"])
            is_open = not response.will_close
        except OSError:
            n_lost, is_open = 1, False
    connection.close()
    return {"ids": ids, "n_lost": n_lost}
