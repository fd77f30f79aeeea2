"""The model in service: a new one takes its place without a gap, a bad one never does."""

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from contract.artifact import MANIFEST
from contract.features import Contract
from serve.metrics import Metrics
from serve.serving import Serving, load
from tests.example import NUMBERS_ONLY, ROOT
from tests.serve.models import write_model
from tests.serve.servers import free_port, running
from tests.serve.test_predict import FLAT, expected

N_DAMAGES = 50  # `make bench` makes 1,000
N_SWAPS = 20  # `make bench` makes 200
N_CLIENTS = 4


@pytest.fixture
def folder(tmp_path) -> Path:
    write_model(tmp_path / "final", seed=1)
    return tmp_path / "final"


@pytest.fixture
def serving(folder) -> Serving:
    return Serving(folder, Metrics())


def test_new_model_takes_the_place_of_the_old_one(serving, folder):
    version = write_model(folder, seed=2)

    serving.look()

    assert serving.current.version == version
    assert serving.problem == ""


def test_model_with_another_contract_brings_its_own_check(serving, folder):
    write_model(folder, contract=Contract.model_validate(NUMBERS_ONLY))

    serving.look()

    assert serving.current.check.json_row({"area": 80.5, "rooms": 3}) == {"area": 80.5, "rooms": 3}


def test_folder_that_is_being_written_only_means_wait(serving, folder):
    old = serving.current.version
    (folder / MANIFEST).rename(folder / "elsewhere")

    serving.look()

    assert (serving.current.version, serving.problem) == (old, "")


def test_folder_that_cannot_be_read_is_told_and_followed_on(serving, folder):
    old = serving.current.version
    manifest = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to(folder / MANIFEST)  # a loop

    serving.look()
    assert serving.current.version == old
    assert "OSError" in serving.problem

    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_bytes(manifest)
    new = write_model(folder, seed=2)
    serving.look()
    assert (serving.current.version, serving.problem) == (new, "")


def test_damaged_artifact_leaves_the_old_one_in_service_until_it_is_mended(serving, folder):
    old = serving.current.version
    new = write_model(folder, seed=2)
    content = next(folder.glob("*.onnx")).read_bytes()
    next(folder.glob("*.onnx")).write_bytes(content[:-1])

    serving.look()
    assert serving.current.version == old
    assert "SHA-256" in serving.problem

    next(folder.glob("*.onnx")).write_bytes(content)
    serving._look_again_s = 0
    serving.look()
    assert (serving.current.version, serving.problem) == (new, "")


def test_refused_artifact_is_not_loaded_again_at_each_look(serving, folder, monkeypatch):
    loads = []
    write_model(folder, seed=2)
    next(folder.glob("*.onnx")).write_bytes(b"")

    def counted(*arguments: object):
        loads.append(arguments)
        return load(*arguments)

    monkeypatch.setattr("serve.serving.load", counted)
    for _ in range(20):
        serving.look()

    assert len(loads) == 1


def test_model_that_cannot_predict_is_not_taken(serving, folder, monkeypatch):
    old = serving.current.version
    write_model(folder, seed=2)
    whole = load(folder)
    silent = replace(whole.model, raw_predict=lambda X: np.array([np.nan]))
    monkeypatch.setattr("serve.serving.load", lambda *_: replace(whole, model=silent))

    serving.look()

    assert serving.current.version == old
    assert "expected one number" in serving.problem


def test_model_loaded_before_the_fork_stays_as_long_as_it_is_the_one_on_disk(serving):
    loaded = serving.current

    serving.look()

    assert serving.current is loaded


def test_no_damage_gets_a_model_into_service(serving, folder, tmp_path):
    old = serving.current.version
    write_model(folder, seed=2)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    draw = random.Random(7)
    for _ in range(N_DAMAGES):
        name = draw.choice([name for name in whole if name != "README.md"])
        content = bytearray(whole[name])
        place = draw.randrange(len(content))
        if draw.random() < 0.5:
            content[place] ^= 1 << draw.randrange(8)
        else:
            del content[place:]
        (folder / name).write_bytes(content)
        serving._seen, serving.problem = None, ""
        serving.look()
        assert serving.current.version == old
        assert serving.problem
        (folder / name).write_bytes(whole[name])


def test_swaps_under_load_give_no_wrong_and_no_failed_answer(tmp_path):
    kept = {seed: tmp_path / f"kept{seed}" for seed in (1, 2)}
    versions = {write_model(place, seed): place for seed, place in kept.items()}
    told = {version: expected(place, FLAT)[0] for version, place in versions.items()}
    final, answers, stop = tmp_path / "final", [], threading.Event()
    write_model(final, seed=1)
    with running(final, tmp_path) as server:

        def ask() -> None:
            while not stop.is_set():
                answers.append(server.ask_json("/predict", FLAT))

        threads = [threading.Thread(target=ask) for _ in range(N_CLIENTS)]
        for thread in threads:
            thread.start()
        for turn in range(N_SWAPS):
            write_model(final, seed=2 - turn % 2)
            time.sleep(0.15)
        stop.set()
        for thread in threads:
            thread.join()

    assert {status for status, _ in answers} == {200}
    assert {answer["model"] for _, answer in answers} == set(told)
    for _, answer in answers:
        assert answer["prediction"] == pytest.approx(told[answer["model"]], rel=1e-5)


def test_server_without_a_model_says_what_to_run_and_does_not_start(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--config", "python:serve.gunicorn_conf"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "MODEL_FOLDER": str(tmp_path), "PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert run.returncode != 0
    assert "Run `make repro`" in run.stderr
    assert "Traceback" not in run.stderr


def test_server_of_an_onnx_model_does_without_the_libraries_of_the_pipeline(tmp_path, flats):
    program = """
import sys
heavy = {"sklearn", "pandas", "pandera", "dvc", "dvclive", "scipy", "matplotlib", "skops"}
class NotInstalled:
    def find_spec(self, name, *_):
        if name.split(".")[0] in heavy:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
import serve.gunicorn_conf
from serve.app import create_app
client = create_app().test_client()
assert client.post("/predict", json=%r).status_code == 200
table = client.get("/example.csv").data
assert client.post("/batch_predict", data=table, content_type="text/csv").status_code == 200
assert client.get("/docs").status_code == 200
assert client.get("/monitor").json["live"]["stats"]["n_predictions"] == 4
"""
    environment = {"MODEL_FOLDER": str(flats), "PREDICTION_LOG": str(tmp_path / "log.db")}
    run = subprocess.run(
        [sys.executable, "-c", program % FLAT],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stderr


def test_skops_model_is_served_by_forked_workers(tmp_path):
    write_model(tmp_path / "final", estimator=DecisionTreeRegressor(max_depth=3, random_state=0))

    with running(tmp_path / "final", tmp_path) as server:
        answers = [server.ask_json("/predict", FLAT) for _ in range(20)]

    assert {status for status, _ in answers} == {200}


def test_skops_model_without_its_library_names_the_requirements(tmp_path):
    write_model(tmp_path / "final", estimator=DecisionTreeRegressor(max_depth=3, random_state=0))
    program = "import sys; sys.modules['skops'] = None; from serve.app import wsgi; wsgi()"

    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"MODEL_FOLDER": str(tmp_path / "final")},
        capture_output=True,
        text=True,
    )

    assert run.returncode == 1
    assert "serve/requirements-skops.txt" in run.stderr
    assert "Traceback" not in run.stderr


def test_sigterm_answers_and_logs_what_is_in_flight(flats, tmp_path):
    ids, lost = [], []
    with running(flats, tmp_path) as server:

        def ask_until_the_end() -> None:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.connect()
            is_open = True
            while is_open:
                try:
                    connection.request(
                        "POST", "/predict", json.dumps(FLAT), {"Content-Type": "application/json"}
                    )
                    response = connection.getresponse()
                    ids.append(json.loads(response.read())["id"])
                    is_open = not response.will_close
                except OSError as error:
                    lost.append(error)
                    is_open = False
            connection.close()

        threads = [threading.Thread(target=ask_until_the_end) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        server.process.terminate()
        for thread in threads:
            thread.join()
        server.process.wait(timeout=20)

    assert lost == []
    assert sorted(ids) == [row["id"] for row in server.logged()]
