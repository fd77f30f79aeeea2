import json
import shutil
import sys


def evaluate_on_other_rows(project, **changes):
    """Split by another seed, so that the champion's recorded score does not count."""
    project.set_params({"seed": 2, "candidates": ["linear"], **changes})
    return project.dvc("repro", check=False)


def test_the_champion_is_the_exported_model_and_its_record_counts_on_the_same_rows(trained):
    told = trained.run(sys.executable, "-m", "ops.promote").stdout
    manifest = json.loads(trained.read("models/final/model.json"))
    assert json.loads(trained.read("data/champion.json"))["version"] == manifest["version"]
    assert manifest["version"] in told

    trained.dvc("repro")

    compared = json.loads(trained.read("metrics/evaluation.json"))["champion"]
    assert compared == {"compared": "recorded", "r2_score": manifest["metrics"]["r2_score"]}


def test_on_other_rows_the_champion_is_scored_anew_from_the_cache_of_dvc(trained):
    trained.run(sys.executable, "-m", "ops.promote")

    evaluate_on_other_rows(trained)

    evaluation = json.loads(trained.read("metrics/evaluation.json"))
    recorded = json.loads(trained.read("data/champion.json"))["metrics"]["r2_score"]
    assert evaluation["champion"]["compared"] == "scored on these rows"
    assert evaluation["champion"]["r2_score"] != recorded
    # both are linear models of the same sample, so they cannot be far apart
    assert abs(evaluation["champion"]["r2_score"] - evaluation["r2_score"]) < 0.02


def test_a_champion_that_is_not_to_be_had_is_not_compared_and_the_gate_decides(trained):
    trained.run(sys.executable, "-m", "ops.promote")
    shutil.rmtree(trained.root / ".dvc/cache")

    run = evaluate_on_other_rows(trained, **{"gate.without_champion": "fail"})

    assert run.returncode != 0
    assert "not compared, and gate.without_champion is fail" in run.stdout
    assert json.loads(trained.read("metrics/verdict.json"))["verdict"] == "refused"

    trained.set_params({"gate.without_champion": "pass"})
    trained.dvc("repro")
    assert json.loads(trained.read("metrics/verdict.json"))["verdict"] == "approved"


def test_promoting_without_a_model_says_what_to_run(untrained):
    run = untrained.run(sys.executable, "-m", "ops.promote", check=False)

    assert run.returncode == 1
    assert "Run `make repro`" in run.stdout
    assert "Traceback" not in run.stdout
    assert untrained.read("data/champion.json").strip() == "{}"


def test_a_promotion_shows_the_old_champion_beside_the_new(trained):
    trained.run(sys.executable, "-m", "ops.promote")
    old = json.loads(trained.read("data/champion.json"))["version"]
    trained.set_params({"prediction.level": 0.8})
    trained.dvc("repro")

    told = trained.run(sys.executable, "-m", "ops.promote").stdout

    new = json.loads(trained.read("data/champion.json"))["version"]
    assert old != new
    assert any(line.split() == ["version", old, new] for line in told.splitlines())
