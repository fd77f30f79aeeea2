"""XGBoost, LightGBM and CatBoost, which the catalogue offers once their requirements are there."""

import json
import re
import sys

import joblib
import numpy as np
import pytest

from contract.artifact import FINAL, ArtifactError, load_model, load_skops
from contract.encoding import encode
from contract.figures import read_figures
from contract.params import load_params
from contract.rows import read_rows, to_arrays
from stages import export, select, tune
from tests.example import write_params

pytestmark = pytest.mark.extras

GRIDS = {
    "xgboost": {"n_estimators": [20, 40], "max_depth": [2]},
    "lightgbm": {"n_estimators": [20, 40], "num_leaves": [7]},
    "catboost": {"iterations": [20, 40], "depth": [4]},
}
NEEDED = {
    "xgboost": {"xgboost.core.Booster", "xgboost.sklearn.XGBRegressor"},
    "lightgbm": {
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMRegressor",
    },
    "catboost": {"catboost.core.CatBoostRegressor"},
}
TOLERANCE = 1e-6  # between an exported model and its pipeline


@pytest.fixture(params=GRIDS)
def name(request) -> str:
    return request.param


@pytest.fixture
def choose(folder, monkeypatch):
    """Tune and select, with one booster as the only candidate; give the fitted pipeline."""

    def run(name: str):
        write_params({"candidates": [name], f"models.{name}.grid": GRIDS[name]})
        monkeypatch.setattr(sys, "argv", ["tune", name])
        tune.main()
        select.main()
        return joblib.load(select.CHOSEN)

    return run


def features() -> np.ndarray:
    return encode(read_rows(tune.TRAIN_ROWS), load_params().contract)


def test_a_booster_is_tuned_and_selected(choose, name):
    chosen = choose(name)
    best = read_figures(tune.TUNED / name / "best.json")
    assert best["n_combinations"] == 2
    assert min(best["fold_scores"]) > 0.5
    for key, value in best["hyperparameters"].items():
        assert chosen.get_params()[f"model__{key}"] == value
    assert read_figures(select.METRICS)["candidate"] == name


def test_a_booster_takes_the_seed(choose, name):
    chosen = choose(name)
    assert chosen.get_params()["model__random_state"] == load_params().seed


def test_the_export_stops_and_names_the_types_that_nobody_trusts(choose, name, monkeypatch):
    monkeypatch.delenv("TRUSTED_TYPES", raising=False)
    with pytest.raises(ArtifactError, match="TRUSTED_TYPES") as refused:
        export.convert(choose(name), features(), TOLERANCE)
    assert set(re.findall(r"[\w.]+\.[A-Z]\w+", str(refused.value))) == NEEDED[name]


def test_with_its_types_trusted_a_booster_is_exported_as_skops(choose, name, monkeypatch):
    monkeypatch.setenv("TRUSTED_TYPES", " ".join(NEEDED[name]))
    chosen, X = choose(name), features()
    model_format, content, comparison = export.convert(chosen, X, TOLERANCE)
    assert model_format == "skops"
    assert comparison["why_not_onnx"] == "cannot be converted (MissingShapeCalculator)"
    assert np.array_equal(load_skops(content)(X), chosen.predict(X.astype(np.float64)))


@pytest.mark.parametrize(
    "name",
    [
        "xgboost",
        "lightgbm",
        "catboost",  # which would write a random id and the time into each model
    ],
    indirect=True,
)
def test_the_same_rows_give_the_same_bytes(choose, name):
    first, stored = choose(name), select.CHOSEN.read_bytes()
    again = choose(name)
    assert select.CHOSEN.read_bytes() == stored
    assert export.to_skops(again) == export.to_skops(first)


def test_the_same_rows_give_the_same_predictions_and_scores(choose, name):
    first, figures = choose(name), (tune.TUNED / name / "best.json").read_bytes()
    again = choose(name)
    X, _ = to_arrays(read_rows(tune.TRAIN_ROWS), load_params().contract)
    assert np.array_equal(again.predict(X), first.predict(X))
    assert (tune.TUNED / name / "best.json").read_bytes() == figures


def test_a_whole_run_with_boosters_only(untrained, monkeypatch):
    untrained.set_params(
        {
            "candidates": list(GRIDS),
            **{f"models.{name}.grid": grid for name, grid in GRIDS.items()},
            "models.xgboost.grid": {"n_estimators": [60]},  # enough for the gate
        }
    )
    refused = untrained.dvc("repro", check=False)
    assert refused.returncode != 0
    assert "list them in TRUSTED_TYPES" in refused.stdout
    assert not (untrained.root / FINAL).exists()

    trusted = " ".join(set().union(*NEEDED.values()))
    assert untrained.repro(env={"TRUSTED_TYPES": trusted}) == ["export"]

    monkeypatch.chdir(untrained.root)
    monkeypatch.setenv("TRUSTED_TYPES", trusted)
    model = load_model()
    assert model.manifest.format == "skops"
    assert model.manifest.candidate in GRIDS
    assert json.loads(untrained.read("metrics/export.json"))["difference_below"] <= TOLERANCE
    X = encode(read_rows(export.VALID_ROWS), load_params().contract)
    y_pred = joblib.load(select.CHOSEN).predict(X.astype(np.float64))
    assert np.allclose(model.predict(X).prediction, np.clip(y_pred, 0, 100), atol=TOLERANCE)
