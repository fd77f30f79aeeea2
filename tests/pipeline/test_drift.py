"""New data through `dvc repro`, held against the shipped reference."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT, Project

SAMPLE = "data/sample/students.csv"
STUDENTS = [ROOT / "data/sample/students.csv", ROOT.parent / "shared/data/students.csv"]


@pytest.fixture
def rows(trained) -> pd.DataFrame:
    return pd.read_csv(trained.root / SAMPLE, keep_default_na=False)


def set_source(project: Project, rows: pd.DataFrame) -> None:
    rows.to_csv(project.root / "data/new.csv", index=False)
    project.set_params({"data.source": "data/new.csv"})


def test_divided_score_and_unseen_groups_stop_the_run_at_validate_with_both_named(trained, rows):
    model = trained.contents("models/final")
    rows["writing_score"] //= 3
    rows.loc[rows.index % 20 == 0, "race_ethnicity"] = "group F"
    set_source(trained, rows)

    refused = trained.dvc("repro", check=False)

    assert refused.returncode != 0
    assert "failed to reproduce 'validate'" in refused.stdout
    assert "50 values break the contract" in refused.stdout
    assert re.search(r"writing_score: difference of means -3\.1\d*, limit 0\.35", refused.stdout)
    assert re.search(r"race_ethnicity: unseen share 0\.05, .*\(group F\)", refused.stdout)
    assert "python -m ops.accept" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert trained.contents("models/final") == model
    assert {path.name for path in (trained.root / "metrics/drift").glob("*.svg")} == {
        "02-race_ethnicity.svg",
        "07-writing_score.svg",
    }


def test_mild_noise_inside_the_ranges_passes(trained, rows):
    rng = np.random.default_rng(0)
    for name in rows.select_dtypes("number"):
        noise = rng.normal(0, 3, len(rows)).round().astype(int)
        rows[name] = (rows[name] + noise).clip(0, 100)
    set_source(trained, rows)

    assert trained.repro("validate") == ["ingest", "validate"]
    drift = json.loads(trained.read("metrics/drift.json"))
    assert (drift["n_fail"], drift["n_warn"]) == (0, 0)


def test_former_data_after_a_refusal_goes_on_as_if_nothing_had_been(trained, rows):
    before = trained.contents("metrics", "models/final")
    set_source(trained, rows.assign(writing_score=rows["writing_score"] // 3))
    assert trained.dvc("repro", check=False).returncode != 0

    trained.set_params({"data.source": SAMPLE})
    trained.repro()

    assert trained.contents("metrics", "models/final") == before


def test_changed_reference_and_changed_limits_run_validate_alone(trained):
    path = trained.root / "data/reference.json"
    path.write_text(path.read_text("utf-8").replace('"mean": 68.573', '"mean": 68.6'), "utf-8")
    assert trained.repro() == ["validate"]

    trained.set_params({"drift.min_rows": 400})
    assert trained.repro() == ["validate"]


def test_plots_of_a_drifted_column_show_without_a_failure(trained, rows):
    set_source(trained, rows.assign(writing_score=rows["writing_score"] // 3))
    trained.dvc("repro", check=False)

    shown = trained.dvc("plots", "show").stdout

    assert "failed" not in shown.lower()
    page = Path(trained.root / "dvc_plots/index.html").read_text("utf-8")
    assert "07-writing_score.svg" in page
    assert "writing_score: difference of means" in page


@pytest.mark.parametrize("table", [path for path in STUDENTS if path.exists()])
def test_tables_of_students_pass_with_the_shipped_reference(table, trained):
    trained.set_params({"data.source": str(table)})

    trained.repro("validate")

    drift = json.loads(trained.read("metrics/drift.json"))
    assert (drift["n_fail"], drift["n_warn"]) == (0, 0)
