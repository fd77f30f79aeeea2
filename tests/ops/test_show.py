import json
import sys


def test_the_summary_names_the_model_its_scores_and_its_place(trained_once):
    told = trained_once.run(sys.executable, "-m", "ops.show").stdout

    manifest = json.loads(trained_once.read("models/final/model.json"))
    for fact in (manifest["version"], manifest["candidate"], "models/final", "math_score"):
        assert fact in told
    for name, value in manifest["metrics"].items():
        assert [name, f"{value:g}"] in [line.split() for line in told.splitlines()]


def test_without_a_model_it_says_what_to_run(untrained):
    run = untrained.run(sys.executable, "-m", "ops.show", check=False)

    assert run.returncode == 1
    assert run.stdout.startswith("ERROR: models/final/model.json does not exist")
    assert "make repro" in run.stdout
