"""All stages one after the other, on contracts and params unlike the shipped ones."""

import sys
from pathlib import Path

import numpy as np
import pytest

from contract.artifact import FINAL, load_model, load_train_profile
from contract.encoding import encode
from contract.features import PREDICTION
from contract.figures import read_figures
from contract.rows import read_rows, to_arrays
from stages import approve, evaluate, export, ingest, select, split, tune, validate
from stages.start import StageError, start
from tests.example import (
    AREA,
    CONDITION,
    HEATING,
    NUMBERS_ONLY,
    RENT,
    ROOMS,
    WITH_GAPS,
    make_rows,
    write_params,
)

IN_ORDER = (ingest, validate, split, tune, select, evaluate, approve, export)
TIGHT = RENT | {"range": [100, 20000]}  # above 0, as some scores demand
VARIANTS = {
    "numbers only, halving, few rows searched": {
        "contract": NUMBERS_ONLY,
        "tune.strategy": "halving",
        "tune.max_rows": 60,
    },
    "categories only": {
        "contract": {"target": RENT, "features": [HEATING, CONDITION]},
        "gate.floor": -1,
    },
    "permitted gaps": {"contract": WITH_GAPS},
    "one feature, whole target, explained variance": {
        "contract": {"target": RENT | {"dtype": "int"}, "features": [AREA]},
        "score": "explained_variance",
    },
    "target without range": {"contract": {"target": {"name": "rent"}, "features": [AREA, HEATING]}},
    "rmse, random, not clipped": {
        "score": "rmse",
        "gate.floor": 1000.0,  # the worst error allowed
        "tune.strategy": "random",
        "prediction.clip": False,
    },
    "gamma deviance": {
        "score": "neg_mean_gamma_deviance",
        "contract": {"target": TIGHT, "features": [AREA, ROOMS, HEATING, CONDITION]},
    },
    "voting": {"select.ensemble": {"kind": "voting", "members": ["ridge", "decision_tree"]}},
    "stacking": {"select.ensemble": {"kind": "stacking", "members": ["ridge", "linear"]}},
    "neighbours and interactions": {
        "candidates": ["k_neighbors"],
        "models.k_neighbors.grid": {"n_neighbors": [3]},
        "preprocessing.joint": [
            {"class": "sklearn.preprocessing.PolynomialFeatures", "args": {"degree": 2}}
        ],
    },
}


def run_all(params, n_rows: int, monkeypatch, seed: int = 0) -> None:
    rows = make_rows(n_rows, seed, contract=params.contract)
    if params.contract.target.dtype == "int":
        rows["rent"] = rows["rent"].round().astype(int)
    rows.to_csv("flats.csv", index=False)
    for stage in IN_ORDER:
        if stage is not tune:
            stage.main()
            continue
        for name in params.candidates:
            monkeypatch.setattr(sys, "argv", ["tune", name])
            tune.main()


@pytest.mark.parametrize("variant", VARIANTS)
def test_stages_make_a_model_that_predicts_as_the_chosen_one(variant, project, monkeypatch):
    params = write_params(VARIANTS[variant])

    run_all(params, 150 if AREA["name"] in params.contract.names() else 900, monkeypatch)

    rows = read_rows(export.VALID_ROWS)
    model, evaluation = load_model(FINAL), read_figures(evaluate.METRICS)
    profile = load_train_profile(FINAL)[1]
    assert profile.n_rows == read_figures(split.METRICS)["n_train_rows"]
    names = [column.name for column in params.contract.columns]
    assert list(profile.columns) == [*names, PREDICTION]
    predicted = profile.columns[PREDICTION]
    assert (predicted.n_values, predicted.n_gaps) == (profile.n_rows, 0)
    told = model.predict(encode(rows, params.contract))
    chosen = evaluate.joblib.load(select.CHOSEN).predict(to_arrays(rows, params.contract)[0])
    if params.prediction.clip and params.contract.target.range:
        chosen = np.clip(chosen, *params.contract.target.range)
    np.testing.assert_allclose(told.prediction, chosen, atol=params.export.tolerance)
    assert model.manifest.metrics[evaluation["score"]] == evaluation[evaluation["score"]]
    assert read_figures(approve.VERDICT)["verdict"] == "approved"
    assert all(path.stat().st_size for path in Path("metrics").rglob("*.*"))


def test_fewest_rows_that_split_allows_go_all_the_way(project, monkeypatch):
    changes = {
        "tune.n_folds": 2,
        "split.test_size": 0.4,
        "prediction.level": 0.5,
        "gate.floor": -99,
    }

    run_all(write_params(changes), 6, monkeypatch)

    assert read_figures(split.METRICS) == {"n_train_rows": 4, "n_test_rows": 2}
    assert load_model(FINAL).manifest.metrics["max_error"] > 0


def test_stage_that_stops_says_why_in_one_sentence_and_no_traceback(project):
    with pytest.raises(SystemExit) as stop:
        start(ingest.main)

    assert str(stop.value.code) == (
        "ERROR: flats.csv does not exist. Correct data.source in params.yaml."
    )


def test_stage_whose_input_was_not_made_yet_names_what_makes_it(project):
    with pytest.raises(SystemExit) as stop:
        start(validate.main)

    assert "No such file or directory: 'data/interim/rows.parquet'" in stop.value.code
    assert stop.value.code.endswith("An earlier stage makes it: run `dvc repro`.")


def test_bad_params_stop_every_stage_before_it_reads_or_writes(project, monkeypatch):
    write_params()
    text = Path("params.yaml").read_text().replace("n_folds: 3", "n_folds: abc")
    Path("params.yaml").write_text(text)
    before = sorted(project.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["tune", "linear"])

    for stage in IN_ORDER:
        with pytest.raises(SystemExit) as stop:
            start(stage.main)
        assert stop.value.code == (
            "ERROR: params.yaml: tune.n_folds is 'abc', expected a whole number"
        )
    assert sorted(project.rglob("*")) == before


def test_score_of_another_task_stops_the_search_in_words(parted, run_tune):
    write_params({"score": "accuracy"})

    with pytest.raises(ValueError, match="score is 'accuracy', expected a score of regression"):
        run_tune("linear")


def test_score_that_the_rows_do_not_allow_is_told_with_its_reason(parted, run_tune):
    rows = read_rows(tune.TRAIN_ROWS)
    rows.assign(rent=rows["rent"] - 1000).to_parquet(tune.TRAIN_ROWS)
    write_params({"score": "neg_mean_gamma_deviance"})

    with pytest.raises(StageError, match="strictly positive"):
        run_tune("linear")
