"""DVC's other commands work on this project as its documentation says they do."""

import json
import re
import shutil
import sys
import time

import pytest
from ruamel.yaml import YAML

from tests.conftest import Project

QUIET = {"PYTHONWARNINGS": "ignore"}  # where a program reads what DVC says
PLOTS = {
    "metrics/drift/measures.csv",
    "metrics/leaderboard.csv",
    "metrics/evaluate/predictions.csv",
    "Residuals",
    "metrics/evaluate/slices.csv",
    "metrics/evaluate/importance.csv",
    "metrics/evaluate/overview.svg",
    *(
        f"metrics/tune/{candidate}/plots/metrics/r2_score.tsv"
        for candidate in ("linear", "ridge", "decision_tree")
    ),
}
STAGES = {
    *("ingest", "validate", "split", "select", "evaluate", "approve", "export"),
    *("tune@ridge", "tune@decision_tree"),
}


@pytest.fixture(scope="module")
def changed(trained_once, tmp_path_factory) -> Project:
    """A project with two commits of results: before and after another grid, gate and choice."""
    project = trained_once.copy(tmp_path_factory.mktemp("changed") / "project")
    project.set_params(
        {
            "candidates": ["ridge", "decision_tree"],
            "models.ridge.grid": {"alpha": [30.0]},
            "gate.floor": 0.7,
        }
    )
    project.dvc("repro")
    project.commit()
    return project


def told(project: Project, *arguments: str) -> dict:
    return json.loads(project.dvc(*arguments, "--json", env=QUIET).stdout)


def experiments(project: Project) -> dict[str, dict]:
    """Give what `dvc exp show` tells of each experiment on HEAD, by its name."""
    (head,) = [state for state in told(project, "exp", "show") if state["rev"] != "workspace"]
    revisions = [revision for found in head["experiments"] for revision in found["revs"]]
    return {revision["name"]: revision["data"] for revision in revisions}


def r2_score(experiment: dict) -> float:
    return experiment["metrics"]["metrics/evaluation.json"]["data"]["r2_score"]


def test_params_diff_names_what_changed(changed):
    difference = told(changed, "params", "diff", "HEAD~1")["params.yaml"]

    values = {name: (change["old"], change["new"]) for name, change in difference.items()}
    assert values == {
        "candidates": ("['linear', 'ridge', 'decision_tree']", "['ridge', 'decision_tree']"),
        "gate.floor": (0.8, 0.7),
        "models.ridge.grid.alpha": ("[0.1, 1.0]", "[30.0]"),
    }


def test_metrics_show_and_diff_give_the_scores(changed):
    shown = told(changed, "metrics", "show")[""]["data"]
    difference = told(changed, "metrics", "diff", "HEAD~1")

    evaluation = json.loads(changed.read("metrics/evaluation.json"))
    assert shown["metrics/evaluation.json"]["data"] == evaluation
    assert shown["metrics/tune/ridge/best.json"]["data"]["hyperparameters"] == {"alpha": 30.0}
    moved = difference["metrics/evaluation.json"]["r2_score"]
    assert moved["new"] == evaluation["r2_score"] != moved["old"]


def test_plots_show_draws_every_plot_without_error(changed):
    page = changed.dvc("plots", "show").stdout
    drawn = told(changed, "plots", "show")

    assert (changed.root / "dvc_plots/index.html").as_uri() in page
    assert "errors" not in drawn
    expected = PLOTS - {"metrics/tune/linear/plots/metrics/r2_score.tsv"}
    assert {name for name, plots in drawn["data"].items() if plots} == expected
    assert changed.git("status", "--short") == ""


def test_plots_diff_draws_both_revisions_without_error(changed):
    drawn = told(changed, "plots", "diff", "HEAD~1")

    assert "errors" not in drawn
    assert {name for name, plots in drawn["data"].items() if plots} == PLOTS
    for name in PLOTS - {"metrics/tune/linear/plots/metrics/r2_score.tsv"}:
        revisions = {revision for plot in drawn["data"][name] for revision in plot["revisions"]}
        assert revisions == {"HEAD~1", "workspace"}, name


def test_every_stage_is_listed_with_its_purpose(changed):
    stages = YAML(typ="safe").load(changed.root / "dvc.yaml")["stages"]
    purpose = {name: stage.get("do", stage)["desc"] for name, stage in stages.items()}

    listed = changed.dvc("stage", "list", env=QUIET).stdout.splitlines()

    told_of = dict(line.split(maxsplit=1) for line in listed)
    assert set(told_of) == STAGES
    for name, text in told_of.items():
        assert purpose[name.partition("@")[0]].startswith(text.strip().removesuffix("…"))


def test_dag_is_drawn_as_text_and_as_mermaid(changed):
    assert "| evaluate |" in changed.dvc("dag").stdout
    mermaid = changed.dvc("dag", "--md").stdout
    number = {name: node for node, name in re.findall(r'(node\d+)\["(.+)"\]', mermaid)}

    assert set(number) == STAGES
    assert f"{number['tune@ridge']}-->{number['select']}" in mermaid
    assert f"{number['approve']}-->{number['export']}" in mermaid


def test_worse_experiment_is_recorded_queued_or_not_though_approve_would_refuse_it(trained):
    before = trained.contents("dvc.lock", "metrics", "models/final", "params.yaml")
    weak = ("evaluate", "-S", "candidates=[decision_tree]")

    trained.dvc("exp", "run", "--name", "here", *weak)
    assert trained.contents("models/final").items() <= before.items()
    refused = trained.dvc("repro", check=False)
    assert refused.returncode != 0
    assert "The model was refused" in refused.stdout
    trained.git("checkout", "--quiet", ".")

    queue = ("exp", "run", "--queue", "--name", "queued")
    trained.dvc(*queue, *weak, "-S", "evaluate.n_permutations=3")
    assert "Queued" in trained.dvc("queue", "status").stdout
    trained.run("sh", "-c", "dvc queue start > ../start.txt 2>&1")  # a worker inherits the output
    assert re.search(r"queued .*Success", wait_for_queue(trained))
    assert "Running stage 'evaluate'" in trained.dvc("queue", "logs", "queued").stdout

    scores = {name: r2_score(experiment) for name, experiment in experiments(trained).items()}
    assert set(scores) == {"here", "queued"}
    assert 0 < scores["here"] == scores["queued"] < 0.8
    assert trained.contents("dvc.lock", "metrics", "models/final", "params.yaml") == before


def wait_for_queue(project: Project) -> str:
    """Give what `dvc queue status` says once nothing waits or runs any more; stop the worker."""
    patience = time.monotonic() + 180
    while True:
        status = project.dvc("queue", "status").stdout
        if not re.search("Queued|Running", status):
            project.dvc("queue", "stop")
            return status
        assert time.monotonic() < patience, status


def test_registered_version_is_got_by_its_tag(trained, tmp_path):
    trained.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    trained.commit()
    trained.dvc("push")
    trained.run("gto", "register", "model", "--version", "v1.0.0")
    registered = trained.contents("models/final")
    trained.git("rm", "--quiet", "dvc.lock")
    trained.commit()  # what came later does not matter

    url = trained.root.as_uri()
    trained.dvc("artifacts", "get", url, "model", "--rev", "v1.0.0", "--out", str(tmp_path / "got"))

    got = Project(tmp_path).contents("got")
    assert {name.replace("got", "models/final"): text for name, text in got.items()} == registered


def test_tuning_in_a_repository_without_a_commit_says_what_to_do(trained):
    shutil.rmtree(trained.root / ".git")
    trained.git("init", "--quiet")

    refused = trained.run(sys.executable, "-m", "stages.tune", "linear", check=False)

    assert refused.returncode == 1
    assert "Make a first commit: git add --all && git commit --message start" in refused.stdout
    assert "Traceback" not in refused.stdout
