"""Tracking in MLflow: against a real server on sqlite, read back with MLflow's own client."""

import json
import logging
import shutil
import socket
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import joblib
import numpy as np
import pandas as pd
import pytest

from contract.figures import read_figures, write_figures
from contract.params import load_params
from contract.preprocessing import make_candidate
from contract.rows import read_rows, to_arrays
from contract.settings import read_env
from contract.task import make_ensemble
from stages import evaluate, select, tracking, tune
from tests.conftest import Project
from tests.example import make_params, write_params
from tests.extras.conftest import free_port

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("default"),  # MLflow warns of its own type hints, and more
]

CANDIDATES = {"linear", "ridge", "decision_tree"}
TRIED_WITHIN_S = 10  # MLflow imported; the stage itself takes a second of it


# --- a whole run -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked(server, trained_once, tmp_path_factory) -> Project:
    """The trained project, its tracked stages run once more with tracking on."""
    project = Project(tmp_path_factory.mktemp("tracked") / "project")
    shutil.copytree(trained_once.root, project.root, symlinks=True)
    again = ("repro", "--force", "--single-item", "tune", "evaluate")
    project.dvc(*again, env={"MLFLOW_TRACKING_URI": server})
    return project


@pytest.fixture
def client(server):
    from mlflow import MlflowClient

    return MlflowClient(server)


def runs_of(client, experiment: str = "pipeline", only: str = "") -> list:
    """Give the runs, the newest first."""
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], only) if found else []


def run_named(client, name: str, experiment: str = "pipeline"):
    (found,) = runs_of(client, experiment, f"tags.candidate = '{name}'")
    return found


def test_tracking_changes_no_output(tracked):
    assert tracked.git("status", "--porcelain") == ""


def test_every_candidate_is_a_finished_run(tracked, client):
    runs = runs_of(client)
    assert {run.info.run_name for run in runs} == CANDIDATES
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == len(CANDIDATES)


def test_a_run_tells_what_it_rests_on(tracked, client):
    run = run_named(client, "ridge")
    best = json.loads(tracked.read("metrics/tune/ridge/best.json"))
    assert run.data.params["alpha"] == str(best["hyperparameters"]["alpha"])
    assert run.data.params["class"] == "sklearn.linear_model.Ridge"
    assert run.data.params["tune.n_folds"] == "5"
    assert run.data.params["preprocessing.ordinal"] == "StandardScaler"
    assert run_named(client, "decision_tree").data.params["preprocessing.ordinal"] == "none"
    assert run.data.tags["mlflow.source.git.commit"] == tracked.git("rev-parse", "HEAD").strip()
    assert "params.yaml" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_fold_scores_are_told_by_step_with_their_mean_and_standard_error(tracked, client):
    table = pd.read_csv(tracked.root / "metrics/leaderboard.csv", index_col="candidate")
    for name in CANDIDATES:
        run = run_named(client, name)
        history = client.get_metric_history(run.info.run_id, "fold_r2_score")
        best = json.loads(tracked.read(f"metrics/tune/{name}/best.json"))
        assert {each.step: each.value for each in history} == dict(enumerate(best["fold_scores"]))
        assert run.data.metrics["r2_score"] == table["mean"][name]
        assert run.data.metrics["standard_error"] == table["standard_error"][name]


def test_logged_models_load_and_predict(tracked, client, server, monkeypatch):
    import mlflow.pyfunc
    import mlflow.sklearn

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.chdir(tracked.root)
    X, y = to_arrays(read_rows(tune.TRAIN_ROWS), load_params().contract)
    for name in CANDIDATES:
        address = f"runs:/{run_named(client, name).info.run_id}/model"
        y_pred = mlflow.sklearn.load_model(address).predict(X)
        assert np.corrcoef(y, y_pred)[0, 1] > 0.8
        assert np.array_equal(mlflow.pyfunc.load_model(address).predict(X), y_pred)
        if name == read_figures(select.METRICS)["candidate"]:  # refitted on the same rows
            assert np.array_equal(joblib.load(select.CHOSEN).predict(X), y_pred)


def test_one_run_is_the_winner_and_has_the_test_scores(tracked, client):
    (winner,) = runs_of(client, only="tags.winner = 'true'")
    evaluation = json.loads(tracked.read("metrics/evaluation.json"))
    assert winner.info.run_name == evaluation["candidate"]
    metrics = winner.data.metrics
    assert metrics["test_r2_score"] == evaluation["r2_score"]
    assert metrics["test_mean_absolute_error"] == evaluation["mean_absolute_error"]
    assert metrics["test_interval_coverage"] == evaluation["interval"]["coverage"]


def test_an_unreachable_server_stops_no_run_and_changes_no_output(trained):
    address = f"http://127.0.0.1:{free_port()}"
    again = ("repro", "--force", "--single-item", "tune@ridge", "evaluate")
    said = trained.dvc(*again, env={"MLFLOW_TRACKING_URI": address}).stdout

    assert said.count(f"not tracked in MLflow at {address}: [Errno 111] Connection refused") == 2
    assert "Traceback" not in said
    assert trained.git("status", "--porcelain") == ""


# --- one stage in this process ---------------------------------------------------------------


@pytest.fixture
def run_tune(folder, monkeypatch, caplog):
    """Tune ridge; give what the stage said, in warnings and else."""

    def run(**settings: str) -> list[str]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["tune", "ridge"])
        caplog.clear()
        with caplog.at_level(logging.INFO):
            read_env()  # as `start` does
            tune.main()
        return [told.getMessage() for told in caplog.records]

    return run


def warnings_in(caplog) -> list[str]:
    ours = [told for told in caplog.records if told.name.startswith("stages.")]
    return [told.getMessage() for told in ours if told.levelno >= logging.WARNING]


@pytest.fixture
def off(run_tune) -> dict[Path, bytes]:
    """What the stage writes while tracking is off."""
    run_tune()
    return outputs()


def outputs() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("metrics").rglob("*") if path.is_file()}


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


class Answering(BaseHTTPRequestHandler):
    """A server that gives one answer to all, and remembers who asked."""

    status, body = 200, b""
    asked_by: list[str | None]

    def do_GET(self) -> None:
        self.asked_by.append(self.headers.get("Authorization"))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815, the name that http.server looks for

    def log_message(self, *_) -> None: ...


@pytest.fixture
def answering() -> Iterator[tuple[type[Answering], str]]:
    """A server to be told its answer, and its address."""
    handler = type("Handler", (Answering,), {"asked_by": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield handler, f"127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture(scope="module", autouse=True)
def mlflow_imported() -> None:
    """Import MLflow beforehand, so that what is timed is the waiting."""
    import mlflow  # noqa: F401


def test_tracking_is_off_without_an_address(run_tune, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # importing it would fail
    run_tune()
    assert warnings_in(caplog) == []


def test_a_missing_library_is_a_warning_that_names_its_requirements(
    off, run_tune, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)  # what is imported first
    run_tune(MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    (warning,) = warnings_in(caplog)
    assert "requirements-mlflow.txt" in warning
    assert outputs() == off


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1", "[Errno 111] Connection refused"),
        ("http://nobody.invalid:5000", "Name or service not known"),
        ("http://user:pa#ss@127.0.0.1", "the address is not valid"),
        ("ftp://127.0.0.1", "unsupported URI"),
        ("postgresql://127.0.0.1:1/runs", "No module named 'psycopg"),
    ],
)
def test_a_wrong_address_is_one_warning_with_the_reason(off, run_tune, caplog, address, reason):
    run_tune(MLFLOW_TRACKING_URI=address)
    (warning,) = warnings_in(caplog)
    assert warning.startswith("not tracked in MLflow at ")
    assert reason in warning
    assert outputs() == off


def test_a_silent_server_delays_a_stage_by_seconds_only(off, run_tune, caplog, silent):
    began = time.monotonic()
    run_tune(MLFLOW_TRACKING_URI=f"http://{silent}")
    assert time.monotonic() - began < TRIED_WITHIN_S
    assert warnings_in(caplog) == [f"not tracked in MLflow at http://{silent}: timed out"]
    assert outputs() == off


def test_the_users_own_time_limit_counts(run_tune, caplog, silent):
    began = time.monotonic()
    run_tune(MLFLOW_TRACKING_URI=f"http://{silent}", MLFLOW_HTTP_REQUEST_TIMEOUT="1")
    assert time.monotonic() - began < 4
    assert "timed out" in warnings_in(caplog)[0]


def test_the_first_contact_has_a_time_limit_of_its_own(run_tune, caplog, silent, monkeypatch):
    monkeypatch.setattr(tracking, "CONTACT_WITHIN_S", 1)
    run_tune(MLFLOW_TRACKING_URI=f"http://{silent}")
    assert "no answer in 1 s" in warnings_in(caplog)[0]


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, b"Unauthorized"), (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')],
)
@pytest.mark.parametrize("where", ["in variables", "in the address"])
def test_user_and_password_are_sent_and_their_refusal_is_told_without_them(
    off, run_tune, caplog, answering, where, status, body
):
    handler, place = answering
    handler.status, handler.body = status, body
    if where == "in variables":
        said = run_tune(
            MLFLOW_TRACKING_URI=f"http://{place}",
            MLFLOW_TRACKING_USERNAME="ada",
            MLFLOW_TRACKING_PASSWORD="lovelace",
        )
    else:
        said = run_tune(MLFLOW_TRACKING_URI=f"http://ada:lovelace@{place}")

    assert {b64decode(header.split()[1]) for header in handler.asked_by} == {b"ada:lovelace"}
    (warning,) = warnings_in(caplog)
    assert f"not tracked in MLflow at http://{place}: user or password are refused" in warning
    assert "lovelace" not in " ".join(said)
    assert outputs() == off


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>a page</html>"),
        (200, b"{}"),
        (200, b'{"experiment": []}'),
        (200, b'{"experiment": "lovelace"}'),
        (404, b"not here"),
        (500, b'{"error_code": "INTERNAL_ERROR", "message": "broken at ada:lovelace"}'),
        (503, b"later"),
    ],
)
def test_a_server_that_is_no_mlflow_or_is_broken_is_a_warning(
    off, run_tune, caplog, answering, status, body
):
    handler, place = answering
    handler.status, handler.body = status, body
    said = run_tune(MLFLOW_TRACKING_URI=f"http://{place}", MLFLOW_TRACKING_PASSWORD="lovelace")
    assert len(warnings_in(caplog)) == 1
    assert "lovelace" not in " ".join(said)
    assert outputs() == off


def test_settings_are_read_from_env_files_above_but_the_environment_goes_first(
    folder, run_tune, client, server, monkeypatch
):
    Path(".env").write_text(
        f"MLFLOW_TRACKING_URI={server}\nMLFLOW_EXPERIMENT_NAME=in-file\nMLFLOW_TRACKING_PASSWORD=\n"
    )
    run_tune()
    assert run_named(client, "ridge", "in-file").data.params["class"].endswith("Ridge")

    run_tune(MLFLOW_EXPERIMENT_NAME="in-environment")
    assert run_named(client, "ridge", "in-environment")
    assert run_named(client, "ridge", "in-file")

    inside = Path(".dvc/tmp/exps/queued")  # where `dvc queue start` works
    shutil.copytree("data", inside / "data")
    shutil.copy("params.yaml", inside)
    monkeypatch.chdir(inside)
    run_tune(MLFLOW_EXPERIMENT_NAME="queued")
    assert run_named(client, "ridge", "queued")


def test_a_database_of_ones_own_needs_no_server(folder, run_tune, caplog):
    from mlflow import MlflowClient

    run_tune(MLFLOW_TRACKING_URI="sqlite:///runs.db")
    assert warnings_in(caplog) == []
    assert run_named(MlflowClient("sqlite:///runs.db"), "ridge").info.status == "FINISHED"


def test_the_winner_moves_with_the_result_and_back_again(
    run_tune, client, server, monkeypatch, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "moving")

    def winner_of(alpha: float, tuned: bool = True) -> str:
        write_params({"candidates": ["ridge"], "models.ridge.grid": {"alpha": [alpha]}})
        if tuned:
            run_tune()
        select.main()
        evaluate.main()
        (winner,) = runs_of(client, "moving", "tags.winner = 'true'")
        return winner.data.params["alpha"]

    assert winner_of(0.1) == "0.1"
    shutil.copytree(tune.TUNED, "kept")
    assert winner_of(50.0) == "50.0"
    shutil.copytree("kept", tune.TUNED, dirs_exist_ok=True)  # as DVC restores a run from its cache
    assert winner_of(0.1, tuned=False) == "0.1"
    assert len(runs_of(client, "moving")) == 2


def test_a_winner_that_was_not_tracked_gets_a_run_of_its_own(
    folder, run_tune, client, server, monkeypatch
):
    import mlflow.sklearn

    run_tune()  # untracked
    params = make_params()
    X, y = to_arrays(read_rows(tune.TRAIN_ROWS), params.contract)
    members = {
        name: make_candidate(params.contract, params.preprocessing, params.models[name], name, 1)
        for name in ("linear", "ridge")
    }
    ensemble = make_ensemble("voting", members).fit(X, y)
    chosen = {"ridge": members["ridge"].fit(X, y), "ensemble": ensemble}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "untracked")

    for name in ("ridge", "ensemble", "ensemble"):
        write_figures(select.METRICS, {"candidate": name, "r2_score": 0.9, "standard_error": 0.1})
        evaluation = {"candidate": name, "score": "r2_score", "r2_score": 0.8}
        evaluation["interval"] = {"coverage": 0.9}
        tracking.track_winner(evaluation, chosen[name])

    assert len(runs_of(client, "untracked")) == 2
    (winner,) = runs_of(client, "untracked", "tags.winner = 'true'")
    assert winner.info.run_name == "ensemble"
    assert winner.data.metrics["r2_score"] == 0.9
    assert winner.data.metrics["test_r2_score"] == 0.8
    model = mlflow.sklearn.load_model(f"runs:/{winner.info.run_id}/model")
    assert np.array_equal(model.predict(X), ensemble.predict(X))


def test_a_run_whose_model_cannot_be_stored_is_marked_as_failed(
    folder, run_tune, client, server, monkeypatch, caplog
):
    def no_space(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlflow.MlflowClient.log_artifacts", no_space)
    run_tune(MLFLOW_TRACKING_URI=server, MLFLOW_EXPERIMENT_NAME="half")
    assert "No space left on device" in warnings_in(caplog)[0]
    run = run_named(client, "ridge", "half")
    assert run.info.status == "FAILED"
    assert "r2_score" in run.data.metrics
