"""With PREDICTION_LOG_SYNC=full each answer leaves after its row is on the disk, as strace sees."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.serve.servers import Server, running
from tests.serve.test_predict import FLAT

N_ANSWERS = 20
ATTACH_S = 20
ANSWER = re.compile(r'(sendto|write)\(\d+, "HTTP/1.1 200 OK')
SYNCED = re.compile(r"fdatasync(\(\d+\)| resumed>\)?)\s*= 0")


@contextmanager
def traced(server: Server, output: Path) -> Iterator[None]:
    """Write down what the worker's threads write, send and wait for, in its order."""
    assert shutil.which("strace"), "strace is missing: sudo apt-get install strace"
    (worker,) = psutil.Process(server.process.pid).children()
    command = ["strace", "--follow-forks", "--output", output, "--attach", str(worker.pid)]
    calls = ["--trace", "fdatasync,sendto,write"]
    tracer = subprocess.Popen([*command, *calls], stderr=subprocess.PIPE, text=True)
    try:
        assert "attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=ATTACH_S)


@pytest.mark.parametrize(("sync", "n_synced"), [("full", N_ANSWERS), ("normal", 0)])
def test_answers_follow_the_fdatasync_of_their_rows_if_asked_to(sync, n_synced, flats, tmp_path):
    trace = tmp_path / "trace"
    with running(flats, tmp_path, WORKERS="1", PREDICTION_LOG_SYNC=sync) as server:
        server.ask_json("/predict", FLAT)  # which makes the file
        with traced(server, trace):
            time.sleep(0.2)  # all threads are attached
            for _ in range(N_ANSWERS):
                assert server.ask_json("/predict", FLAT)[0] == 200

    calls = [
        "answer" if ANSWER.search(line) else "synced"
        for line in trace.read_text("utf-8", "replace").splitlines()
        if ANSWER.search(line) or SYNCED.search(line)
    ]
    assert calls.count("answer") == N_ANSWERS
    followed = [
        call for before, call in zip(["", *calls], calls, strict=False) if before == "synced"
    ]
    assert followed.count("answer") == n_synced
