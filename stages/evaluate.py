"""Measure the chosen model on the test rows, which no other stage opens."""

import logging
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import sklearn
from scipy.stats import bootstrap
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance
from threadpoolctl import threadpool_limits

from contract.artifact import with_interval
from contract.champion import CHAMPION, read_champion
from contract.figures import read_figures, rounded, write_figures
from contract.params import Params, load_params
from contract.rows import read_rows, sample_rows, to_arrays
from contract.task import Score, score_named, scores_by_name
from stages.draw_overview import draw_overview
from stages.score_champion import score_champion
from stages.start import start
from stages.tracking import track_winner

logger = logging.getLogger(__name__)

TEST_ROWS = Path("data/split/test.parquet")
CHOSEN = Path("models/chosen.joblib")
SELECTION = Path("metrics/select.json")
LEADERBOARD = Path("metrics/leaderboard.csv")
METRICS = Path("metrics/evaluation.json")
PLOTS = Path("metrics/evaluate")
IMPORTANCE_ROWS = 10_000  # enough to order the features, however many rows there are
BOOTSTRAP_CELLS = 1_000_000  # rows times resamples held in memory at once
CONFIDENCE_FROM_ROWS = 10  # fewer rows give no interval worth showing
GAP = "(missing)"  # the group of those that left a feature out
SCORE_FROM_ROWS = 2  # the least on which r2 is defined


def predict(
    rows: pd.DataFrame, chosen: BaseEstimator, half_width: float, params: Params
) -> pd.DataFrame:
    """Give a row for each of `rows`: actual, predicted, residual, lower, upper."""
    X, y = to_arrays(rows, params.contract)
    bounds = params.contract.target.range if params.prediction.clip else None
    told = with_interval(chosen.predict(X), half_width, bounds)
    return pd.DataFrame(
        {
            "actual": y,
            "predicted": told.prediction,
            "residual": y - told.prediction,
            "lower": told.lower,
            "upper": told.upper,
        }
    )


def confidence_interval(predicted: pd.DataFrame, score: Score, params: Params) -> dict[str, float]:
    """Give the ends of the score's bootstrap percentile interval, rows drawn with replacement."""
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        ends = bootstrap(
            (predicted["actual"].to_numpy(), predicted["predicted"].to_numpy()),
            lambda y_true, y_pred, axis: score.of_each(y_true.T, y_pred.T),
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=params.evaluate.n_resamples,
            batch=max(1, BOOTSTRAP_CELLS // len(predicted)),
            confidence_level=params.evaluate.confidence,
            rng=np.random.default_rng(params.seed),
        ).confidence_interval
    return {"lower": float(ends.low), "upper": float(ends.high)}


def measure_slices(
    rows: pd.DataFrame, predicted: pd.DataFrame, score: Score, params: Params
) -> pd.DataFrame:
    """Measure each group of each categorical feature, so that a bad one cannot hide in the mean.

    Columns: feature, group, n_rows, the scores, and lower and upper of the main score.
    """
    slices = []
    for feature in params.contract.features:
        groups = [*feature.categories, *([GAP] if feature.categories and feature.missing else [])]
        for group in groups:
            members = predicted[rows[feature.name].fillna(GAP).eq(group).to_numpy()]
            measured = {"feature": feature.name, "group": group, "n_rows": len(members)}
            if len(members) >= SCORE_FROM_ROWS:
                measured |= scores_by_name(members["actual"], members["predicted"], score)
            if len(members) >= CONFIDENCE_FROM_ROWS:
                measured |= confidence_interval(members, score, params)
            slices.append(rounded(measured))
    scores = scores_by_name(predicted["actual"], predicted["predicted"], score)
    columns = ["feature", "group", "n_rows", *scores, "lower", "upper"]
    return pd.DataFrame(slices, columns=columns)  # all of them, however small the groups are


def measure_importance(
    rows: pd.DataFrame, chosen: BaseEstimator, score: Score, params: Params
) -> pd.DataFrame:
    """Measure how much the score loses when one feature is shuffled; the greatest loss first."""
    found = permutation_importance(
        chosen,
        *to_arrays(sample_rows(rows, IMPORTANCE_ROWS, params.seed), params.contract),
        scoring=score.scoring,
        n_repeats=params.evaluate.n_permutations,
        random_state=params.seed,
    )
    table = pd.DataFrame(
        {
            "feature": params.contract.names(),
            "importance": rounded(found.importances_mean.tolist()),
            "standard_deviation": rounded(found.importances_std.tolist()),
        }
    )
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def sum_up(predicted: pd.DataFrame, selection: dict, score: Score, params: Params) -> dict:
    """Collect the figures of all test rows: scores, confidence, coverage of the interval."""
    covered = predicted["actual"].between(predicted["lower"], predicted["upper"])
    return {
        "candidate": selection["candidate"],
        "score": score.name,
        "higher_is_better": score.higher_is_better,
        "n_test_rows": len(predicted),
        **scores_by_name(predicted["actual"], predicted["predicted"], score),
        "confidence": {
            "level": params.evaluate.confidence,
            **confidence_interval(predicted, score, params),
        },
        "interval": {**selection["interval"], "coverage": float(covered.mean())},
    }


def main() -> None:
    params = load_params()
    score = score_named(params.score)
    rows = read_rows(TEST_ROWS)
    chosen = joblib.load(CHOSEN)
    selection = read_figures(SELECTION)

    with threadpool_limits(1):
        predicted = predict(rows, chosen, selection["interval"]["half_width"], params)
        evaluation = sum_up(predicted, selection, score, params)
        slices = measure_slices(rows, predicted, score, params)
        importance = measure_importance(rows, chosen, score, params)
    champion = score_champion(read_champion(CHAMPION), rows, score)

    write_figures(METRICS, evaluation | {"champion": champion})
    PLOTS.mkdir(parents=True, exist_ok=True)
    points = sample_rows(predicted, params.evaluate.max_points, params.seed).map(rounded)
    points.to_csv(PLOTS / "predictions.csv", index=False)
    slices.to_csv(PLOTS / "slices.csv", index=False)
    importance.to_csv(PLOTS / "importance.csv", index=False)
    overview = draw_overview(
        points, slices, importance, pd.read_csv(LEADERBOARD), score, params.contract.target
    )
    (PLOTS / "overview.svg").write_text(overview, "utf-8")
    logger.info("%s %.4f on %d test rows", score.name, evaluation[score.name], len(rows))
    track_winner(evaluation, chosen)


if __name__ == "__main__":
    start(main)
