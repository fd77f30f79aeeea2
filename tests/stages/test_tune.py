"""One candidate's search: the best combination, its fold scores, and small text alone."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid

from contract.figures import read_figures
from contract.preprocessing import make_candidate
from contract.rows import read_rows, to_arrays
from contract.task import score_named, standard_error
from stages import tune
from stages.start import StageError
from tests.example import CONTRACT, make_params, make_rows, write_params


def best_of(name: str) -> dict:
    return read_figures(Path("metrics/tune") / name / "best.json")


def pipeline_and_grid(params, name: str):
    model = params.models[name]
    pipeline = make_candidate(params.contract, params.preprocessing, model, name, params.seed)
    return pipeline, {f"model__{key}": list(values) for key, values in model.grid.items()}


def test_best_of_the_grid_and_its_fold_scores_are_those_of_scikit_learn(parted, run_tune):
    run_tune("decision_tree")

    params = make_params()
    pipeline, grid = pipeline_and_grid(params, "decision_tree")
    X, y = to_arrays(read_rows(tune.TRAIN_ROWS), CONTRACT)
    folds = KFold(3, shuffle=True, random_state=params.seed)
    found = GridSearchCV(pipeline, grid, cv=folds, scoring="r2").fit(X, y)
    scores = [found.cv_results_[f"split{i}_test_score"][found.best_index_] for i in range(3)]
    assert best_of("decision_tree") == {
        "hyperparameters": {"max_depth": found.best_params_["model__max_depth"]},
        "score": "r2_score",
        "fold_scores": pytest.approx(scores, rel=1e-4),
        "n_combinations": 2,
        "n_rows": 160,
    }


def test_an_error_is_written_above_zero_and_the_least_one_wins(parted, run_tune):
    write_params({"score": "rmse", "models.ridge.grid": {"alpha": [1e6, 0.1]}})

    run_tune("ridge")

    best = best_of("ridge")
    assert best["score"] == "root_mean_squared_error"
    assert best["hyperparameters"] == {"alpha": 0.1}
    assert all(score > 0 for score in best["fold_scores"])


@pytest.mark.parametrize("strategy", ["grid", "random", "halving"])
@pytest.mark.parametrize("name", ["linear", "ridge", "decision_tree"])
def test_every_strategy_gives_a_combination_of_the_grid_and_a_score_in_each_fold(
    strategy, name, parted, run_tune
):
    params = write_params({"tune.strategy": strategy, "tune.n_iter": 2})

    run_tune(name)

    best, grid = best_of(name), params.models[name].grid
    assert best["hyperparameters"] in list(ParameterGrid({k: list(v) for k, v in grid.items()}))
    assert len(best["fold_scores"]) == 3
    assert min(best["fold_scores"]) > 0.5


def test_random_search_tries_no_more_than_n_iter_combinations_and_follows_the_seed(
    parted, run_tune
):
    alphas = [float(alpha) for alpha in np.geomspace(1e-3, 1e5, 40)]
    found = set()
    for seed in range(4):
        changes = {"tune.strategy": "random", "tune.n_iter": 1, "seed": seed}
        write_params(changes | {"models.ridge.grid": {"alpha": alphas}})
        run_tune("ridge")
        first = best_of("ridge")
        run_tune("ridge")
        assert best_of("ridge") == first
        found.add(first["hyperparameters"]["alpha"])

    assert len(found) > 1


def test_parallel_search_gives_the_same_as_a_serial_one(monkeypatch):
    params = make_params({"models.decision_tree.grid": {"max_depth": [2, 3, 4, 5]}})
    X, y = to_arrays(make_rows(150), CONTRACT)
    found = []
    for limit in (float("inf"), 0):  # seconds of work from which worker processes are started
        monkeypatch.setattr(tune, "PARALLEL_FROM_S", limit)
        best, scores = tune.search(
            *pipeline_and_grid(params, "decision_tree"),
            X,
            y,
            params.tune,
            score_named("r2"),
            params.seed,
        )
        found.append((best, scores.tolist()))

    assert found[0] == found[1]


def test_combinations_that_differ_by_a_rounding_error_are_equal_and_the_first_wins(
    parted, run_tune
):
    alphas = [0.1, 0.1 - 1e-10, 0.1 - 2e-10, 0.1 - 3e-10]
    params = write_params({"models.ridge.grid": {"alpha": alphas}})

    run_tune("ridge")

    X, y = to_arrays(read_rows(tune.TRAIN_ROWS), CONTRACT)
    folds = KFold(3, shuffle=True, random_state=params.seed)
    to_the_last_bit = GridSearchCV(*pipeline_and_grid(params, "ridge"), cv=folds).fit(X, y)
    assert to_the_last_bit.best_index_ != 0
    assert best_of("ridge")["hyperparameters"] == {"alpha": 0.1}


def test_halving_compares_an_eighth_of_the_grid_on_all_folds_and_scores_as_well(
    parted, run_tune, monkeypatch
):
    compared, found_scores = [], []

    class Watched(GridSearchCV):
        def fit(self, X, y):
            found = super().fit(X, y)
            compared.append(found.cv_results_["params"])
            return found

    monkeypatch.setattr(tune, "GridSearchCV", Watched)
    alphas = [float(alpha) for alpha in np.geomspace(1e-3, 1e6, 17)]
    for strategy in ("grid", "halving"):
        write_params({"tune.strategy": strategy, "models.ridge.grid": {"alpha": alphas}})
        run_tune("ridge")
        found_scores.append(np.array(best_of("ridge")["fold_scores"]))

    assert [len(params) for params in compared] == [17, 2]
    of_grid, of_halving = found_scores
    assert of_grid.mean() - of_halving.mean() <= standard_error(of_grid)


def test_search_looks_at_no_more_rows_than_allowed(parted, run_tune):
    write_params({"tune.max_rows": 50})

    run_tune("linear")

    assert best_of("linear")["n_rows"] == 50


def test_hyperparameters_are_written_exactly_as_params_give_them(parted, run_tune):
    exact = {"alpha": [0.123456789123], "solver": ["svd"], "max_iter": [None], "positive": [False]}
    write_params({"models.ridge.grid": exact})

    run_tune("ridge")

    assert best_of("ridge")["hyperparameters"] == {key: value[0] for key, value in exact.items()}


def test_same_inputs_leave_the_same_bytes_and_no_model(parted, run_tune):
    def made() -> dict[str, bytes]:
        files = [path for path in Path("metrics/tune").rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    run_tune("decision_tree")
    first = made()
    shutil.rmtree("metrics/tune")
    run_tune("decision_tree")

    assert made() == first
    assert {Path(name).suffix for name in first} == {".json", ".tsv"}
    assert max(map(len, first.values())) < 1000


def test_fold_scores_are_drawn_by_dvclive(parted, run_tune):
    run_tune("ridge")

    with Path("metrics/tune/ridge/plots/metrics/r2_score.tsv").open(newline="") as file:
        drawn = [float(row["r2_score"]) for row in csv.DictReader(file, delimiter="\t")]
    best, summary = best_of("ridge"), read_figures(Path("metrics/tune/ridge/metrics.json"))
    assert drawn == best["fold_scores"]
    assert summary["r2_score"] == pytest.approx(np.mean(drawn), rel=1e-4)
    error = np.std(drawn, ddof=1) / np.sqrt(3)
    assert summary["standard_error"] == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models.ridge.grid": {"alhpa": [1.0]}},
            r"^models\.ridge was refused by sklearn\.\S+\.Ridge: Invalid parameter 'alhpa'",
        ),
        (
            {"models.ridge.grid": {"alpha": [1.0, -1.0]}},
            r"^models\.ridge was refused by .*: The 'alpha' parameter of Ridge must be",
        ),
        (
            {"models.ridge.grid": {"alpha": [1.0, "x", 2.0]}},
            r"^models\.ridge was refused by .*: The 'alpha' parameter of Ridge must be",
        ),
        (
            {"models.ridge.args": {"solver": "fast"}},
            r"^models\.ridge was refused by .*: The 'solver' parameter of Ridge must be",
        ),
    ],
)
def test_refused_hyperparameter_is_told_with_its_candidate(changes, message, parted, run_tune):
    write_params(changes)

    with pytest.raises(StageError, match=message) as error:
        run_tune("ridge")

    assert "Correct its args or grid in params.yaml." in str(error.value)
    assert not Path("metrics/tune/ridge").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [([], "nothing"), (["rigde"], "rigde"), (["ridge", "svr"], "ridge svr")],
)
def test_name_that_is_no_model_is_told_with_the_catalogue(arguments, told, parted, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tune", *arguments])

    with pytest.raises(StageError, match=f"^tune was given {told}, expected one of the models: "):
        tune.main()


def test_git_repository_without_a_commit_is_told_plainly(parted, run_tune):
    subprocess.run(["git", "init", "--quiet"], check=True)

    with pytest.raises(StageError, match=r"DVCLive cannot work .* Make a first commit: git add"):
        run_tune("linear")
