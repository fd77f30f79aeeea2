"""MLflow's and BentoML's servers of models/chosen.joblib, in environments of their own."""

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

from benchmarks.load import ROOT, Server, ask
from contract.artifact import read_manifest
from contract.encoding import row_encoder

START_S = 180  # MLflow took 9 to 56 on busy processors
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
    """A server of models, and how it gets to run."""

    name: str  # in lower case that of its package
    requirements: tuple[str, ...]
    program: str  # becomes peer.py, beside chosen.joblib
    commands: tuple[str, ...]  # run there; the last one, given a port, serves
    path: str
    key: str  # of the matrix in the body


PEERS = (
    Peer(
        "MLflow",
        ("--requirement", "requirements-mlflow.txt"),
        SAVE_FOR_MLFLOW,
        ("python peer.py", "mlflow models serve --env-manager local -m model --workers 2 --port"),
        "/invocations",
        "inputs",
    ),
    Peer(
        "BentoML",
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


def prepare(peer: Peer, row: bytes) -> Contestant:
    """Install a peer in an environment that stays for the next run."""
    package = peer.name.lower()
    environment = Path(tempfile.gettempdir()) / f"bench-peers-{package}"
    beside = Path(sys.executable).parent
    uv = shutil.which("uv", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        raise RuntimeError("uv is missing, which makes the peers' environments: pip install uv")
    pins = [f"{name}=={version(name)}" for name in PINNED]
    install = ["pip", "install", "--compile-bytecode", "--python", environment]
    for arguments in (
        ["venv", "--allow-existing", "--python", sys.executable, environment],
        [*install, *peer.requirements, *pins],
    ):
        subprocess.run([uv, "--quiet", *arguments], cwd=ROOT, check=True)
    packages = [str(each) for each in environment.glob("lib/python*/site-packages")]
    (installed,) = distributions(name=package, path=packages)
    X = row_encoder(read_manifest().contract)(json.loads(row)).tolist()
    body = json.dumps({peer.key: X}).encode()
    server = _serving(peer, environment / "bin", body)
    return Contestant(f"{peer.name} {installed.version}", server, peer.path, body)


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
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # all that it started, however it ended
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
