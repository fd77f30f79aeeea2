"""A reference is shown before it is written, and written only where somebody says yes."""

import json
import sys

import pandas as pd
import pytest

from contract.profile import read_reference

SAMPLE = "data/sample/students.csv"
ACCEPT = (sys.executable, "-m", "ops.accept")


@pytest.fixture
def project(trained):
    (trained.root / "data/reference.json").write_text("{}\n")
    return trained


def source(project, **columns) -> None:
    rows = pd.read_csv(project.root / SAMPLE, keep_default_na=False)
    rows.assign(**columns).to_csv(project.root / "data/other.csv", index=False)
    project.set_params({"data.source": "data/other.csv"})


def test_shown_first_written_with_yes_and_then_data_is_held_against_it(project):
    assert project.repro("validate") == ["validate"]
    assert "ops.accept" in json.loads(project.read("metrics/drift.json"))["status"]

    shown = project.run(*ACCEPT).stdout
    assert "Nothing is written yet." in shown
    assert shown.rstrip().endswith("python -m ops.accept --yes")
    assert project.read("data/reference.json") == "{}\n"

    accepted = project.run(*ACCEPT, "--yes").stdout
    assert "data/reference.json now describes data/sample/students.csv; commit it." in accepted
    reference = read_reference(project.root / "data/reference.json")
    assert reference.n_rows == 1000

    assert project.repro("validate") == ["validate"]
    assert json.loads(project.read("metrics/drift.json"))["n_reference_rows"] == 1000


def test_old_and_new_stand_side_by_side_with_how_far_they_are_apart(project):
    project.run(*ACCEPT, "--yes")
    rows = pd.read_csv(project.root / SAMPLE)
    source(project, writing_score=(rows["writing_score"] / 3).round().astype(int))
    assert project.dvc("repro", "validate", check=False).returncode != 0

    shown = project.run(*ACCEPT).stdout

    lines = [line.split() for line in shown.splitlines()]
    assert ["rows", "1000", "1000"] in lines
    assert any(line[0] == "mean" and line[1] > "68" and line[2] < "23" for line in lines if line)
    assert any(line[:3] == ["difference", "of", "means"] and line[-1] == "**" for line in lines)
    assert project.run(*ACCEPT, "--yes").returncode == 0
    assert project.repro("validate") == ["validate"]


def test_rows_of_another_source_are_refused(project):
    source(project)
    run = project.run(*ACCEPT, "--yes", check=False)
    assert run.returncode == 1
    assert "rows.parquet is not made of data/other.csv yet. Run: dvc repro ingest" in run.stdout
    assert project.read("data/reference.json") == "{}\n"


def test_without_rows_it_says_what_to_run(untrained):
    run = untrained.run(*ACCEPT, check=False)

    assert run.stdout.startswith("ERROR: data/interim/rows.parquet is not made of")
    assert "Traceback" not in run.stdout


def test_rows_that_break_the_contract_are_refused(project):
    source(project, writing_score=101)
    project.repro("ingest")

    run = project.run(*ACCEPT, "--yes", check=False)

    assert run.returncode == 1
    assert "data/other.csv: 1000 values break the contract" in run.stdout
    assert project.read("data/reference.json") == "{}\n"


def test_damaged_reference_is_told_and_written_anew_with_yes(project):
    (project.root / "data/reference.json").write_text('{"n_rows": 5')

    run = project.run(*ACCEPT, check=False)
    assert run.returncode == 1
    assert "data/reference.json is not a whole profile" in run.stdout
    assert "Traceback" not in run.stdout

    project.run(*ACCEPT, "--yes")
    assert read_reference(project.root / "data/reference.json").n_rows == 1000
