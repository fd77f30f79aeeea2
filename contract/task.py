"""What depends on the task, regression: its scores, baseline, folds and interval."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import StackingRegressor, VotingRegressor
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.model_selection import KFold

from contract.errors import ContractError

SHORT_NAMES = {
    "rmse": "neg_root_mean_squared_error",
    "mae": "neg_mean_absolute_error",
    "mse": "neg_mean_squared_error",
}
ENSEMBLES = {"voting": VotingRegressor, "stacking": StackingRegressor}
REPORTED = ("r2", "rmse", "mae", "neg_median_absolute_error", "neg_max_error")


@dataclass(frozen=True)
class Score:
    """One measure of a model, in its natural sign: an error is positive and better low."""

    name: str  # in metrics files: r2_score, root_mean_squared_error ...
    scoring: str  # what scikit-learn calls it
    higher_is_better: bool
    of: Callable[[np.ndarray, np.ndarray], float]  # y_true, y_pred, both of shape (n_rows,)
    of_each: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (n_rows, n_sets) to (n_sets,)

    def natural(self, scored: np.ndarray) -> np.ndarray:
        """Turn scikit-learn's values, always better high, into natural ones."""
        return scored if self.higher_is_better else -scored

    def gain(self, value: float, over: float) -> float:
        """How much better `value` is than `over`; negative if it is worse."""
        return value - over if self.higher_is_better else over - value


def score_named(name: str) -> Score:
    """Look up a score by short name or by scikit-learn's; raises ContractError if there is none."""
    scoring = SHORT_NAMES.get(name, name)
    if scoring not in get_scorer_names():
        raise ContractError(
            f"score is {name!r}, expected r2, rmse, mae, mse or a scorer of scikit-learn, "
            "listed by sklearn.metrics.get_scorer_names()."
        )
    scorer = get_scorer(scoring)
    function, options = scorer._score_func, scorer._kwargs  # scikit-learn has no public way

    def of(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        return float(function(y_true, y_pred, **options))

    def of_each(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if "multioutput" in signature(function).parameters:  # checks its input once for all sets
            return function(y_true, y_pred, multioutput="raw_values", **options)
        return np.array([of(*each) for each in zip(y_true.T, y_pred.T, strict=True)])

    score = Score(function.__name__, scoring, scorer._sign > 0, of, of_each)
    _expect_regression(score, name)
    return score


def _expect_regression(score: Score, name: str) -> None:
    y = np.array([1.5, 2.5, 4.0])
    try:
        with warnings.catch_warnings(action="error", category=UserWarning):  # clusters' scores
            score.of(y, y + 0.25)
    except (TypeError, ValueError, UserWarning) as error:
        raise ContractError(
            f"score is {name!r}, expected a score of regression such as r2 or rmse: {error}"
        ) from error


def scores_by_name(y_true: np.ndarray, y_pred: np.ndarray, main: Score) -> dict[str, float]:
    """Measure predictions by the main score and by those that every evaluation lists."""
    scores = [main, *map(score_named, REPORTED)]
    return {score.name: score.of(y_true, y_pred) for score in scores}


def make_baseline() -> DummyRegressor:
    """Make what every candidate must beat: the training rows' mean, whatever the features."""
    return DummyRegressor(strategy="mean")


def make_ensemble(kind: str, members: dict[str, BaseEstimator]) -> BaseEstimator:
    """Combine estimators by `voting` (their mean) or `stacking` (a ridge on their predictions)."""
    return ENSEMBLES[kind](list(members.items()))


def make_folds(n_folds: int, seed: int) -> KFold:
    return KFold(n_folds, shuffle=True, random_state=seed)


def half_width(y_true: np.ndarray, y_pred: np.ndarray, level: float) -> float:
    """Give h such that y_pred +- h holds a new target with about the probability `level`.

    Both take shape (n_rows,); y_pred is made out of fold, by models that have not seen the row.
    Infinite if there are too few rows for the level.

    Source: the split-conformal quantile, rank ceil((n + 1) * level) of the absolute residuals,
    over the residuals of all folds: Vovk, "Cross-conformal predictors" (2015). Free of
    assumptions on the distribution; one width for all rows.
    """
    residuals = np.sort(np.abs(y_true - y_pred))
    rank = int(np.ceil((len(residuals) + 1) * level))
    return float(residuals[rank - 1]) if rank <= len(residuals) else float("inf")


def standard_error(fold_scores: np.ndarray) -> float:
    """Estimate how far the mean of fold scores, shape (n_folds,), may be off."""
    return float(np.std(fold_scores, ddof=1) / np.sqrt(len(fold_scores)))
