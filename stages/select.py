"""Choose the winner by the candidates' fold scores and refit it on all train rows."""

import logging
import shutil
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.model_selection import cross_val_predict, cross_val_score
from threadpoolctl import threadpool_limits

from contract.figures import read_figures, rounded, write_figures
from contract.params import Params, load_params
from contract.preprocessing import ESTIMATOR, make_candidate
from contract.rows import read_rows, sample_rows, to_arrays
from contract.task import (
    Score,
    half_width,
    make_baseline,
    make_ensemble,
    make_folds,
    score_named,
    standard_error,
)
from stages.start import StageError, start

logger = logging.getLogger(__name__)

TRAIN_ROWS = Path("data/split/train.parquet")
TUNED = Path("metrics/tune")
CHOSEN = Path("models/chosen.joblib")
METRICS = Path("metrics/select.json")
LEADERBOARD = Path("metrics/leaderboard.csv")


def choose(
    fold_scores: dict[str, np.ndarray],
    baseline: np.ndarray,
    score: Score,
    tie_standard_errors: float,
) -> str:
    """Name the winner: the simplest of those that tie with the best.

    `fold_scores` holds scores of shape (n_folds,) by candidate, simple ones first. A candidate
    ties if its mean is within `tie_standard_errors` standard errors of the best one's.
    Raises StageError if no candidate beats the baseline, given as its fold scores.

    Source: the one-standard-error rule, Breiman et al., "Classification and Regression Trees"
    (1984), section 3.4.3.
    """
    gains = {
        name: score.gain(scores.mean(), baseline.mean()) for name, scores in fold_scores.items()
    }
    best = max(gains, key=gains.__getitem__)
    if gains[best] <= 0:
        raise StageError(
            f"No candidate beats the baseline's {score.name} {baseline.mean():.4g}; the best, "
            f"{best}, has {fold_scores[best].mean():.4g}. Look for features that tell more."
        )
    margin = tie_standard_errors * standard_error(fold_scores[best])
    return next(name for name, gain in gains.items() if gain > 0 and gain >= gains[best] - margin)


def tuned(params: Params) -> tuple[dict[str, BaseEstimator], dict[str, np.ndarray]]:
    """Give each candidate's unfitted pipeline, hyperparameters set, and its fold scores."""
    pipelines, fold_scores = {}, {}
    for name in params.candidates:
        best = read_figures(TUNED / name / "best.json")
        settings = {f"{ESTIMATOR}__{key}": value for key, value in best["hyperparameters"].items()}
        model = params.models[name]
        pipelines[name] = make_candidate(
            params.contract, params.preprocessing, model, name, params.seed
        ).set_params(**settings)
        fold_scores[name] = np.array(best["fold_scores"])
    return pipelines, fold_scores


def leaderboard(
    fold_scores: dict[str, np.ndarray], score: Score, winner: str, baseline: np.ndarray
) -> pd.DataFrame:
    """Make the table of candidates, best first, and the baseline below them."""
    rows = [
        {
            "candidate": name,
            "score": score.name,
            "mean": scores.mean(),
            "standard_error": standard_error(scores),
            "chosen": name == winner,
        }
        for name, scores in [*fold_scores.items(), ("baseline", baseline)]
    ]
    table = pd.DataFrame(rows).sort_values(
        "mean", ascending=not score.higher_is_better, kind="stable", ignore_index=True
    )
    figures = ("mean", "standard_error")
    return table.assign(**{key: rounded(table[key].tolist()) for key in figures})


def expect_finite(half_width: float, n_rows: int, level: float) -> None:
    if half_width == float("inf"):
        raise StageError(
            f"{n_rows} train rows are too few for an interval of prediction.level {level:g}. "
            "Bring more rows, or lower the level in params.yaml."
        )


def forget_others(candidates: tuple[str, ...]) -> None:
    """Remove what was tuned under names that are no candidates any more."""
    for folder in TUNED.iterdir():
        if folder.is_dir() and folder.name not in candidates:
            shutil.rmtree(folder)


def without_stamps(fitted: BaseEstimator) -> BaseEstimator:
    """Take away the random id and the time that CatBoost writes into each model it fits."""
    if hasattr(fitted, "get_metadata"):
        metadata = fitted.get_metadata()
        metadata["model_guid"] = metadata["train_finish_time"] = ""
    steps = [step for _, step in getattr(fitted, "steps", [])]
    for part in [*steps, *getattr(fitted, "estimators_", [])]:
        without_stamps(part)
    return fitted


def main() -> None:
    params = load_params()
    score = score_named(params.score)
    train = read_rows(TRAIN_ROWS)
    X, y = to_arrays(sample_rows(train, params.tune.max_rows, params.seed), params.contract)
    folds = make_folds(params.tune.n_folds, params.seed)
    forget_others(params.candidates)
    pipelines, fold_scores = tuned(params)

    def scores_of(estimator: BaseEstimator) -> np.ndarray:
        return score.natural(cross_val_score(estimator, X, y, cv=folds, scoring=score.scoring))

    with threadpool_limits(1):
        baseline = scores_of(make_baseline())
        ensemble = params.select.ensemble
        if ensemble.kind != "none":
            members = {name: pipelines[name] for name in ensemble.members}
            pipelines["ensemble"] = make_ensemble(ensemble.kind, members)
            fold_scores["ensemble"] = scores_of(pipelines["ensemble"])
        winner = choose(fold_scores, baseline, score, params.select.tie_standard_errors)
        chosen = pipelines[winner]
        width = half_width(y, cross_val_predict(chosen, X, y, cv=folds), params.prediction.level)
        expect_finite(width, len(y), params.prediction.level)
        chosen = without_stamps(chosen.fit(*to_arrays(train, params.contract)))

    CHOSEN.parent.mkdir(exist_ok=True)
    joblib.dump(chosen, CHOSEN)
    leaderboard(fold_scores, score, winner, baseline).to_csv(LEADERBOARD, index=False)
    write_figures(
        METRICS,
        {
            "candidate": winner,
            score.name: fold_scores[winner].mean(),
            "standard_error": standard_error(fold_scores[winner]),
            "baseline": {score.name: baseline.mean()},
            "n_train_rows": len(train),
            "interval": {"level": params.prediction.level, "half_width": width},
        },
    )
    logger.info("chosen: %s, %s %.4f", winner, score.name, fold_scores[winner].mean())


if __name__ == "__main__":
    start(main)
