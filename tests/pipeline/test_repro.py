"""`dvc repro`: it makes everything, runs again what a change affects, and nothing else."""

import json
import shutil
import sys

import pandas as pd
import pytest

from tests.conftest import Project, stages_run

ALL_STAGES = [
    "ingest",
    "validate",
    "split",
    "tune@linear",
    "tune@ridge",
    "tune@decision_tree",
    "select",
    "evaluate",
    "approve",
    "export",
]
QUIET = {"PYTHONWARNINGS": "ignore"}  # where a program reads what DVC says
UP_TO_DATE = "Data and pipelines are up to date."
MADE = ("dvc.lock", "metrics", "models/final")
METRICS_AND_PLOTS = {
    *(
        f"metrics/tune/{candidate}/{file}"
        for candidate in ("linear", "ridge", "decision_tree")
        for file in ("best.json", "metrics.json", "plots/metrics/r2_score.tsv")
    ),
    *(
        f"metrics/evaluate/{file}"
        for file in ("importance.csv", "overview.svg", "predictions.csv", "slices.csv")
    ),
    *(
        f"metrics/{step}.json"
        for step in (
            *("ingest", "validation", "drift", "split", "select"),
            *("evaluation", "verdict", "export"),
        )
    ),
    "metrics/drift/measures.csv",
    "metrics/leaderboard.csv",
}


def clone(project: Project, name: str) -> Project:
    project.git("clone", "--quiet", str(project.root), str(project.root.parent / name))
    return Project(project.root.parent / name)


def leaderboard(project: Project) -> pd.DataFrame:
    return pd.read_csv(project.root / "metrics/leaderboard.csv").set_index("candidate")


def test_clean_repro_makes_the_model_and_all_metrics_and_plots(trained):
    manifest = json.loads(trained.read("models/final/model.json"))

    assert set(trained.contents("metrics")) == METRICS_AND_PLOTS
    assert set(trained.contents("models/final")) == {
        f"models/final/{name}" for name in ["model.json", *manifest["files"]]
    }
    assert manifest["candidate"] == json.loads(trained.read("metrics/select.json"))["candidate"]


def test_second_repro_runs_nothing_and_leaves_status_and_git_clean(trained):
    assert trained.dvc("status").stdout.strip().endswith(UP_TO_DATE)
    assert trained.repro() == []
    assert trained.git("status", "--short") == ""


def test_another_folder_and_another_hash_seed_give_the_same_bytes(untrained, trained_once):
    done = untrained.dvc("repro", env={"PYTHONHASHSEED": "12345"})

    assert stages_run(done.stdout) == ALL_STAGES
    assert untrained.contents(*MADE) == trained_once.contents(*MADE)
    of_stages = [line for line in done.stdout.splitlines() if "site-packages/dvc/" not in line]
    assert not [line for line in of_stages if "Warning:" in line]


def test_changed_grid_searches_that_candidate_alone_and_goes_on_only_if_scores_moved(trained):
    model = trained.contents("models/final")

    trained.set_params({"models.ridge.grid": {"alpha": [0.1, 1.0, 1e6]}})  # no better one
    assert trained.repro() == ["tune@ridge", "select"]

    trained.set_params({"models.ridge.grid": {"alpha": [1000.0]}})  # the table changes
    assert trained.repro() == ["tune@ridge", "select", "evaluate"]
    assert trained.contents("models/final") == model


def test_removed_candidate_is_out_of_reach_even_with_its_file_on_disk(trained):
    before = trained.contents(*MADE)
    assert leaderboard(trained).loc["linear", "chosen"]
    removed = trained.root / "metrics/tune/linear"
    shutil.copytree(removed, trained.root / "kept")

    trained.set_params({"candidates": ["ridge", "decision_tree"]})
    assert trained.repro() == ["select", "evaluate", "approve", "export"]
    assert leaderboard(trained)["chosen"].to_dict() == {
        "ridge": True,
        "decision_tree": False,
        "baseline": False,
    }
    assert not removed.exists()
    after = trained.contents(*MADE)

    shutil.copytree(trained.root / "kept", removed)
    trained.repro()
    assert trained.contents(*MADE) == after

    trained.set_params({"candidates": ["linear", "ridge", "decision_tree"]})
    assert "tune@linear" not in trained.repro()  # DVC remembers that run
    assert trained.contents(*MADE) == before


def test_changed_data_file_runs_again(trained):
    source = trained.root / "data/sample/students.csv"
    source.write_text(source.read_text("utf-8").rsplit("\n", 2)[0] + "\n", "utf-8")

    assert trained.repro("split") == ["ingest", "validate", "split"]
    assert json.loads(trained.read("metrics/ingest.json"))["n_rows"] == 999


def test_changed_gate_runs_approve_alone_and_a_refusal_keeps_the_model_and_the_evaluation(trained):
    trained.set_params({"gate.floor": 0.7})
    assert trained.repro() == ["approve"]
    model = trained.contents("models/final")
    score = json.loads(trained.read("metrics/evaluation.json"))["r2_score"]

    trained.set_params({"gate.floor": 0.99, "evaluate.n_permutations": 3})
    refused = trained.dvc("repro", check=False)

    assert refused.returncode != 0
    assert f"r2_score is {score:g}, worse than gate.floor 0.99" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert trained.contents("models/final") == model
    changed = json.loads(trained.dvc("status", "--json", env=QUIET).stdout)
    assert set(changed) == {"approve", "export"}  # evaluate is recorded


def test_fresh_clone_agrees_with_the_project_it_was_made_from(trained):
    store = str(trained.root.parent / "store")
    trained.dvc("remote", "add", "--default", "store", store)
    trained.commit()
    trained.dvc("push")

    pulled = clone(trained, "pulled")
    pulled.dvc("pull")
    assert pulled.dvc("status").stdout.strip().endswith(UP_TO_DATE)
    assert pulled.repro() == []
    assert pulled.contents(*MADE) == trained.contents(*MADE)

    without_data = clone(trained, "without-data")
    assert without_data.repro("--pull", "--allow-missing") == []
    assert without_data.git("status", "--short") == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate.flor": 0.7}, "params.yaml: gate.flor is not a known key; did you mean floor?"),
        ({"gate.floor": "high"}, "params.yaml: gate.floor is 'high', expected a number"),
        ({"candidates": ["linear", "zz"]}, "Parameters 'models.zz' are missing from 'params.yaml'"),
    ],
)
def test_wrong_param_stops_with_a_message_that_names_it(trained, changes, message):
    before = trained.contents("dvc.lock", "models/final")
    trained.set_params(changes)

    refused = trained.dvc("repro", check=False)

    assert refused.returncode != 0
    assert message in refused.stdout
    assert "Traceback" not in refused.stdout
    assert trained.contents("dvc.lock", "models/final") == before


def test_candidate_that_the_catalogue_lacks_stops_the_first_stage(untrained):
    untrained.set_params({"candidates": ["linear", "zz"]})

    refused = untrained.run(sys.executable, "-m", "stages.ingest", check=False)

    assert refused.returncode == 1
    assert refused.stdout.startswith("ERROR: params.yaml: candidates names 'zz', expected names of")


def test_experiment_with_a_wrong_param_stops_with_a_message_that_names_it(trained):
    before = trained.contents("dvc.lock", "models/final")

    refused = trained.dvc("exp", "run", "-S", "tune.n_folds=abc", check=False)

    assert refused.returncode != 0
    assert "params.yaml: tune.n_folds is 'abc', expected a whole number" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert stages_run(refused.stdout) == ["split"]  # the first that depends on it
    assert trained.contents("dvc.lock", "models/final") == before
