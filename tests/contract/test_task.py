"""What depends on the task: scores, baseline, ensembles, folds and the interval."""

import warnings
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.tree import DecisionTreeRegressor

from contract.errors import ContractError
from contract.rows import to_arrays
from contract.task import (
    half_width,
    make_baseline,
    make_ensemble,
    make_folds,
    score_named,
    scores_by_name,
    standard_error,
)
from tests.example import CONTRACT, make_rows

OF_REGRESSION = {
    "d2_absolute_error_score",
    "explained_variance",
    "neg_max_error",
    "neg_mean_absolute_error",
    "neg_mean_absolute_percentage_error",
    "neg_mean_gamma_deviance",
    "neg_mean_poisson_deviance",
    "neg_mean_squared_error",
    "neg_mean_squared_log_error",
    "neg_median_absolute_error",
    "neg_root_mean_squared_error",
    "neg_root_mean_squared_log_error",
    "r2",
}
Y_TRUE, Y_PRED = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.5, 2.0, 3.0, 9.0])


@pytest.mark.parametrize(
    ("short", "name", "value", "higher_is_better"),
    [
        ("r2", "r2_score", 1 - 2.25 / 28.75, True),
        ("rmse", "root_mean_squared_error", 0.75, False),
        ("mae", "mean_absolute_error", 0.625, False),
        ("mse", "mean_squared_error", 0.5625, False),
        ("neg_median_absolute_error", "median_absolute_error", 0.75, False),
        ("neg_max_error", "max_error", 1.0, False),
        ("neg_mean_gamma_deviance", "mean_gamma_deviance", None, False),
        ("explained_variance", "explained_variance_score", None, True),
    ],
)
def test_score_has_its_full_name_its_natural_sign_and_its_direction(
    short, name, value, higher_is_better
):
    score = score_named(short)

    assert (score.name, score.higher_is_better) == (name, higher_is_better)
    assert score.of(Y_TRUE, Y_PRED) > 0
    if value is not None:
        assert score.of(Y_TRUE, Y_PRED) == pytest.approx(value)


@pytest.mark.parametrize("name", sorted(OF_REGRESSION))
def test_score_agrees_with_scikit_learns_scorer_and_gain_is_above_zero_for_the_better(name):
    score = score_named(name)
    X = np.arange(30.0)[:, None]
    y = 5 + X.ravel() + np.sin(X.ravel())
    good, poor = LinearRegression().fit(X, y), make_baseline().fit(X, y)

    def of(model):
        return score.of(y, model.predict(X))

    assert of(good) == pytest.approx(score.natural(get_scorer(name)(good, X, y)))
    assert score.gain(of(good), over=of(poor)) > 0 > score.gain(of(poor), over=of(good))
    assert score.gain(of(good), over=of(good)) == 0


@pytest.mark.parametrize("name", sorted(OF_REGRESSION))
def test_scores_of_many_sets_are_those_of_each(name):
    score = score_named(name)
    draws = np.random.default_rng(0).integers(0, 4, (4, 9))

    together = score.of_each(Y_TRUE[draws], Y_PRED[draws])

    apart = [score.of(Y_TRUE[draw], Y_PRED[draw]) for draw in draws.T]
    np.testing.assert_allclose(together, apart)


@pytest.mark.parametrize("name", sorted(set(get_scorer_names()) - OF_REGRESSION))
def test_score_of_another_task_is_refused_in_words(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in a stage, where a warning is no error
        with pytest.raises(ContractError, match=f"^score is '{name}', expected a score of regr"):
            score_named(name)


@pytest.mark.parametrize("name", ["", "R2", "rsme", "accuracy_score", "root_mean_squared_error"])
def test_unknown_score_is_refused_with_what_there_is(name):
    with pytest.raises(ContractError, match=f"^score is '{name}', expected r2, rmse, mae, mse or "):
        score_named(name)


def test_every_evaluation_lists_the_main_score_first_and_the_usual_ones():
    usual = {
        "r2_score",
        "root_mean_squared_error",
        "mean_absolute_error",
        "median_absolute_error",
        "max_error",
    }

    assert set(scores_by_name(Y_TRUE, Y_PRED, score_named("r2"))) == usual
    names = list(scores_by_name(Y_TRUE, Y_PRED, score_named("neg_mean_gamma_deviance")))
    assert names[0] == "mean_gamma_deviance"
    assert set(names[1:]) == usual


def test_baseline_tells_the_mean_whatever_the_features():
    baseline = make_baseline().fit(np.zeros((4, 1)), Y_TRUE)

    assert baseline.predict([[7], [9]]).tolist() == [3.75, 3.75]


def test_folds_hold_each_row_once_and_follow_the_seed():
    def held_out(seed: int) -> list[list[int]]:
        return [test.tolist() for _, test in make_folds(3, seed).split(np.zeros(10))]

    assert sorted(chain.from_iterable(held_out(1))) == list(range(10))
    assert held_out(1) == held_out(1) != held_out(2)


def test_voting_tells_the_mean_of_its_members():
    X, y = to_arrays(make_rows(80), CONTRACT)
    members = {"ridge": Ridge(), "tree": DecisionTreeRegressor(max_depth=2)}

    voting = make_ensemble("voting", members).fit(X, y)

    apart = [member.fit(X, y).predict(X) for member in members.values()]
    np.testing.assert_allclose(voting.predict(X), np.mean(apart, axis=0))


def test_stacking_beats_the_member_that_cannot_see_the_line():
    X, y = to_arrays(make_rows(200), CONTRACT)
    tree = DecisionTreeRegressor(max_depth=2)
    stacked = make_ensemble("stacking", {"ridge": Ridge(), "tree": tree})

    def r2(model):
        return cross_val_score(model, X, y, cv=make_folds(3, 0), scoring="r2").mean()

    assert r2(stacked) > r2(tree)
    assert [name for name, _ in stacked.estimators] == ["ridge", "tree"]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_interval_holds_the_share_of_new_rows_that_its_level_says(level):
    """Over 20 seeds: a tree fitted on 200 rows, its folds' residuals, 2,000 rows never seen."""
    coverage = []
    for seed in range(20):
        X, y = to_arrays(make_rows(200, seed), CONTRACT)
        model = DecisionTreeRegressor(min_samples_leaf=5, random_state=seed)
        y_pred = cross_val_predict(model, X, y, cv=make_folds(10, seed))
        width = half_width(y, y_pred, level)
        new_X, new_y = to_arrays(make_rows(2000, seed + 1000), CONTRACT)
        coverage.append(np.mean(np.abs(new_y - model.fit(X, y).predict(new_X)) <= width))

    assert np.mean(coverage) == pytest.approx(level, abs=0.03)


@given(
    residuals=st.lists(st.integers(-50, 50), min_size=1, max_size=60),
    percent=st.integers(1, 99),
)
def test_width_is_the_least_that_holds_the_rank_of_the_formula(residuals, percent):
    y = np.array(residuals, dtype=float)
    rank = -(-(len(y) + 1) * percent // 100)  # the ceiling, in whole numbers

    width = half_width(y, np.zeros(len(y)), percent / 100)

    if rank > len(y):
        assert width == np.inf
    else:
        # a rounding error may cost one rank, to the safe side
        at_rank = np.sort(np.abs(y))[rank - 1 :][:2]
        assert width in at_rank or (rank == len(y) and width == np.inf)


def test_width_is_infinite_when_there_are_too_few_rows_for_the_level():
    assert half_width(np.arange(9.0), np.zeros(9), 0.9) == 8
    assert half_width(np.arange(8.0), np.zeros(8), 0.9) == np.inf


def test_standard_error_shrinks_with_the_root_of_the_folds():
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1)
    assert standard_error(np.array([1.0, 3.0] * 8)) == pytest.approx(1.0328 / 4, abs=1e-4)
