"""What one prediction costs from MLflow's and BentoML's servers, beside ours: `make bench-peers`.

Both serve models/chosen.joblib, which our model was exported from, in environments of their own,
and are spared all but the model: encoded numbers come in, and nobody checks or logs them.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from statistics import median

from benchmarks.load import (
    CONSTANT,
    OUR_SETTINGS,
    ROOT,
    START_S,
    Server,
    ask,
    load_with_wrk,
    row_as_json,
    serving,
)
from benchmarks.report import Section, make_table, verdict
from contract.artifact import read_manifest
from contract.encoding import row_encoder

CONNECTIONS = (1, 8)
N_ROUNDS = 5
ROUND_S = 4
TIMES_OURS = 5  # the CPU time that we expect a peer's request to take at least
PINNED = ("scikit-learn", "numpy", "joblib")  # as installed here, where the model was fitted
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_DO_NOT_TRACK": "True"}
SAVE_FOR_MLFLOW = """
import joblib, mlflow.sklearn
model = joblib.load("chosen.joblib")
mlflow.sklearn.save_model(model, "model", pip_requirements=["scikit-learn"])
"""
BENTOML_SERVICE = """
import bentoml, joblib, numpy as np

@bentoml.service(workers=2)
class Peer:
    def __init__(self) -> None:
        self.model = joblib.load("chosen.joblib")

    @bentoml.api
    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.model.predict(X)
"""


@dataclass(frozen=True)
class Peer:
    """A package that serves models, and how."""

    package: str
    requirements: tuple[str, ...]
    program: str  # becomes peer.py, beside chosen.joblib
    commands: tuple[str, ...]  # run there; the last one, given a port, serves
    path: str
    key: str  # of the matrix in the body


PEERS = (
    Peer(
        "mlflow",
        ("--requirement", "requirements-mlflow.txt"),
        SAVE_FOR_MLFLOW,
        ("python peer.py", "mlflow models serve --env-manager local -m model --workers 2 --port"),
        "/invocations",
        "inputs",
    ),
    Peer(
        "bentoml",
        ("bentoml",),
        BENTOML_SERVICE,
        ("bentoml serve peer:Peer --host 127.0.0.1 --port",),
        "/predict",
        "X",
    ),
)


@dataclass(frozen=True)
class Contestant:
    """A server that has yet to start, and what it is asked."""

    name: str
    server: AbstractContextManager[Server]
    path: str
    body: bytes


def measure_peers(quick: bool) -> Section:
    """Ask each server for the same prediction, in turn, and compare its CPU time with ours."""
    n_rounds, seconds = (1, 1) if quick else (N_ROUNDS, ROUND_S)
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    row = row_as_json()
    constant = serving(*OUR_SETTINGS, CONSTANT, WORKERS="2")
    contestants = [
        Contestant("a constant", constant, "/predict", row),
        Contestant("ours", serving(*OUR_SETTINGS, WORKERS="2"), "/predict", row),
        *(_prepare(peer, row) for peer in PEERS),
    ]
    with ExitStack() as stack:
        running = [(each, stack.enter_context(each.server)) for each in contestants]
        for each, server in running:
            load_with_wrk(server.port, 8, 1, each.body, each.path)  # warm
        for _ in range(n_rounds):
            for n_connections in CONNECTIONS:
                for each, server in running:
                    figures = _cost(each, server, n_connections, seconds)
                    found.setdefault((each.name, n_connections), []).append(figures)
    rows = {
        key: [median(column) for column in zip(*each, strict=True)] for key, each in found.items()
    }
    header = ["server", "connections", "CPU ms a request", "p99 ms", "requests/s"]
    ratios = {
        f"CPU a request, {name} / ours, {n} connections": cpu_ms / rows["ours", n][0]
        for (name, n), (cpu_ms, *_) in rows.items()
        if name not in ("a constant", "ours")
    }
    return Section(
        "16 Peers",
        (
            f"Medians of {n_rounds} runs of {seconds} s, the servers in turn, two workers each, on "
            "the processors that also run wrk. The peers get encoded numbers and neither check nor "
            "log them; ours gets the row as people send it, and does both. CPU time is that of all "
            "processes of a server.",
            make_table(
                header, [[*key, f"{cpu:.3f}", ms, round(n)] for key, (cpu, ms, n) in rows.items()]
            ),
            "\n".join(verdict(*ratio, TIMES_OURS, at_least=True) for ratio in ratios.items()),
        ),
    )


def _cost(
    asked: Contestant, server: Server, n_connections: int, seconds: float
) -> tuple[float, float, float]:
    """Give the CPU ms of one request, the p99 of the answers' ms, and requests a second."""
    before_s = server.cpu_s()
    load = load_with_wrk(server.port, n_connections, seconds, asked.body, asked.path)
    if load.n_failed:
        raise RuntimeError(f"{asked.name}: {load.n_failed} of {load.n_requests} requests failed")
    cpu_ms = 1000 * (server.cpu_s() - before_s) / load.n_requests
    return cpu_ms, load.p99_ms, load.n_requests / load.seconds


def _prepare(peer: Peer, row: bytes) -> Contestant:
    """Install a peer in an environment that stays until the next run."""
    environment = Path(tempfile.gettempdir()) / f"bench-peers-{peer.package}"
    beside = Path(sys.executable).parent
    uv = shutil.which("uv", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        raise RuntimeError("uv is missing, which makes the peers' environments: pip install uv")
    pins = [f"{name}=={version(name)}" for name in PINNED]
    for arguments in (
        ["venv", "--allow-existing", "--python", sys.executable, environment],
        ["pip", "install", "--python", environment, *peer.requirements, *pins],
    ):
        subprocess.run([uv, "--quiet", *arguments], cwd=ROOT, check=True)
    packages = [str(each) for each in environment.glob("lib/python*/site-packages")]
    (installed,) = distributions(name=peer.package, path=packages)
    X = row_encoder(read_manifest().contract)(json.loads(row)).tolist()
    body = json.dumps({peer.key: X}).encode()
    name = f"{installed.name} {installed.version}"
    return Contestant(name, _serving(peer, environment / "bin", body), peer.path, body)


@contextmanager
def _serving(peer: Peer, programs: Path, body: bytes) -> Iterator[Server]:
    """Run a peer on a free port until the block ends."""
    variables = os.environ | QUIET | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder, log_path = Path(name), Path(name) / "output.log"
        shutil.copy(ROOT / "models/chosen.joblib", folder)
        (folder / "peer.py").write_text(peer.program)
        output = stack.enter_context(log_path.open("w"))
        options = {"cwd": folder, "env": variables, "stdout": output, "stderr": output}
        *before, last = [[programs / each.split()[0], *each.split()[1:]] for each in peer.commands]
        for command in before:
            subprocess.run(command, check=True, **options)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        began = time.perf_counter()
        process = subprocess.Popen([*last, str(port)], start_new_session=True, **options)
        try:
            _wait_for_answer(process, port, peer.path, body, log_path)
            yield Server(process, port, time.perf_counter() - began, log_path)
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # MLflow's first process leaves the others
            process.wait(timeout=60)


def _wait_for_answer(
    process: subprocess.Popen, port: int, path: str, body: bytes, output: Path
) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            if ask(port, path, body)[0] == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the peer did not start:\n{output.read_text()}")
