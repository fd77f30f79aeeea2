"""Search the hyperparameters of one candidate by cross-validation on the train rows.

Leaves small text only: `select` refits the winner, so no stage keeps a model for each candidate.
"""

import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from dvclive import Live
from scmrepo.exceptions import SCMError
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401, makes halving importable
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    ParameterGrid,
    RandomizedSearchCV,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from contract.figures import rounded, write_figures
from contract.params import Params, Tune, load_params
from contract.preprocessing import ESTIMATOR, make_candidate
from contract.rows import read_rows, sample_rows, to_arrays
from contract.task import Score, make_folds, score_named, standard_error
from stages.start import StageError, end_with_dvc, start
from stages.tracking import track_candidate

logger = logging.getLogger(__name__)

TRAIN_ROWS = Path("data/split/train.parquet")
TUNED = Path("metrics/tune")  # a folder for each candidate
HALVING_FROM_ROWS = 1000  # on fewer, a fit takes as long and the ranks are chance
HALVING_FACTOR = 3  # a third of the combinations goes on, with three times the rows
FINALISTS = 8  # one in so many of the grid's combinations is compared on all folds
PARALLEL_FROM_S = 10.0  # starting worker processes costs about 3 s of CPU time, which must pay
NINE_DIGITS = "{:.9g}"  # combinations that differ by less are equal, on every processor

Grid = dict[str, list] | list[dict[str, list]]


def search(
    pipeline: Pipeline,
    grid: dict,
    X: np.ndarray,
    y: np.ndarray,
    tune: Tune,
    score: Score,
    seed: int,
) -> tuple[dict[str, Any], np.ndarray]:
    """Find the best combination of the grid; give it with its score in each fold, (n_folds,).

    Linear algebra and OpenMP keep to one thread, whether the search runs in this process or in
    one worker a core: small fits gain nothing from more, and the sums come out the same.
    """
    folds = list(make_folds(tune.n_folds, seed).split(X))
    with threadpool_limits(1):
        n_jobs = _n_jobs(pipeline, grid, X, y, tune)
        with joblib.parallel_config(
            "loky", n_jobs=n_jobs, inner_max_num_threads=1, initializer=end_with_dvc
        ):
            options = {"scoring": score.scoring, "refit": False, "error_score": "raise"}
            if tune.strategy == "halving":
                grid = _finalists(pipeline, grid, X, y, seed, options)
            found = _make_search(pipeline, grid, tune, seed, options | {"cv": folds}).fit(X, y)
    return _best(found, score, tune.n_folds)


def _make_search(
    pipeline: Pipeline, grid: Grid, tune: Tune, seed: int, options: dict[str, Any]
) -> GridSearchCV | RandomizedSearchCV:
    if tune.strategy == "random":
        n_iter = min(tune.n_iter, len(ParameterGrid(grid)))
        return RandomizedSearchCV(pipeline, grid, n_iter=n_iter, random_state=seed, **options)
    return GridSearchCV(pipeline, grid, **options)


def _finalists(
    pipeline: Pipeline, grid: Grid, X: np.ndarray, y: np.ndarray, seed: int, options: dict[str, Any]
) -> list[dict]:
    """Halve the grid by rounds of more and more rows; give the best, as a grid of their own.

    A round fits on one half of its rows and ranks on the other. Left to itself, scikit-learn takes
    all folds, and rounds of some 30 rows: on 1,000 rows that costs more than the whole grid, and
    30 neighbours are not to be found.
    """
    combinations = ParameterGrid(grid)
    n_rounds = 1 + int(math.log(len(combinations), HALVING_FACTOR))
    first_rows = max(HALVING_FROM_ROWS, len(X) // HALVING_FACTOR ** (n_rounds - 1))
    found = HalvingGridSearchCV(
        pipeline,
        grid,
        cv=list(make_folds(2, seed).split(X))[:1],
        factor=HALVING_FACTOR,
        min_resources=min(first_rows, len(X)),
        random_state=seed,
        **options,
    ).fit(X, y)
    results = found.cv_results_
    last_round = np.flatnonzero(results["iter"] == found.n_iterations_ - 1)
    ranked = last_round[np.argsort(-_means(found)[last_round], kind="stable")]
    best = [results["params"][i] for i in ranked[: max(1, len(combinations) // FINALISTS)]]
    in_order = [combination for combination in combinations if combination in best]
    return [{key: [value] for key, value in each.items()} for each in in_order]


def _means(found: BaseSearchCV) -> np.ndarray:
    """Give each combination's mean score, so rounded that rounding errors rank nothing."""
    return np.array([float(NINE_DIGITS.format(m)) for m in found.cv_results_["mean_test_score"]])


def _best(found: BaseSearchCV, score: Score, n_folds: int) -> tuple[dict[str, Any], np.ndarray]:
    """Take the first of the best combinations, with its scores."""
    results = found.cv_results_
    best = int(np.argmax(_means(found)))
    scores = np.array([results[f"split{fold}_test_score"][best] for fold in range(n_folds)])
    return results["params"][best], score.natural(scores)


def _n_jobs(pipeline: Pipeline, grid: dict, X: np.ndarray, y: np.ndarray, tune: Tune) -> int:
    """Choose one process or one a core, by the time that the grid's two ends take to fit."""
    combinations = ParameterGrid(grid)
    ends = [clone(pipeline).set_params(**combinations[i]) for i in {0, len(combinations) - 1}]
    n_rows = len(X) * (tune.n_folds - 1) // tune.n_folds
    began = time.perf_counter()
    for end in ends:
        end.fit(X[:n_rows], y[:n_rows])
    seconds_per_fit = (time.perf_counter() - began) / len(ends)
    n_fits = {
        "grid": len(combinations) * tune.n_folds,
        "random": min(tune.n_iter, len(combinations)) * tune.n_folds,
        "halving": len(combinations) * (1 + tune.n_folds / FINALISTS),
    }[tune.strategy]
    return joblib.cpu_count() if seconds_per_fit * n_fits > PARALLEL_FROM_S else 1


def log_folds(folder: Path, score: Score, fold_scores: np.ndarray) -> None:
    """Write the fold scores with DVCLive, whose files `dvc plots` and `dvc metrics` read."""
    try:
        live = Live(str(folder), dvcyaml=False, save_dvc_exp=False)
    except SCMError as error:
        raise StageError(
            f"DVCLive cannot work in this git repository: {error}. "
            "Make a first commit: git add --all && git commit --message start"
        ) from error
    with live:
        for fold_score in rounded(fold_scores.tolist()):
            live.log_metric(score.name, fold_score)
            live.next_step()
        live.summary[score.name] = rounded(float(fold_scores.mean()))
        live.summary["standard_error"] = rounded(standard_error(fold_scores))


def named_candidate(arguments: list[str], params: Params) -> str:
    if len(arguments) != 1 or arguments[0] not in params.models:
        raise StageError(
            f"tune was given {' '.join(arguments) or 'nothing'}, expected one of the models: "
            f"{', '.join(params.models)}."
        )
    return arguments[0]


def main() -> None:
    params = load_params()
    name = named_candidate(sys.argv[1:], params)
    score = score_named(params.score)
    model = params.models[name]
    pipeline = make_candidate(params.contract, params.preprocessing, model, name, params.seed)
    grid = {f"{ESTIMATOR}__{key}": list(values) for key, values in model.grid.items()}
    rows = sample_rows(read_rows(TRAIN_ROWS), params.tune.max_rows, params.seed)
    X, y = to_arrays(rows, params.contract)

    try:
        best, fold_scores = search(pipeline, grid, X, y, params.tune, score, params.seed)
    except (TypeError, ValueError) as error:
        raise StageError(
            f"models.{name} was refused by {model.class_}: {str(error).rstrip('.')}. "
            "Correct its args or grid in params.yaml."
        ) from error

    log_folds(TUNED / name, score, fold_scores)
    hyperparameters = {key.removeprefix(f"{ESTIMATOR}__"): value for key, value in best.items()}
    write_figures(
        TUNED / name / "best.json",
        {
            "score": score.name,
            "fold_scores": fold_scores.tolist(),
            "n_combinations": len(ParameterGrid(grid)),
            "n_rows": len(rows),
        },
        given={"hyperparameters": hyperparameters},
    )
    logger.info("%s: %s %.4f", name, score.name, fold_scores.mean())
    track_candidate(name, params, pipeline.set_params(**best), X, y)


if __name__ == "__main__":
    start(main)
