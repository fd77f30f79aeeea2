"""The winner by cross-validation: its rule, its rivals, its refit and its interval."""

import csv
import json
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import StackingRegressor, VotingRegressor
from sklearn.model_selection import cross_val_predict, cross_val_score

from contract.figures import read_figures
from contract.preprocessing import make_candidate
from contract.rows import read_rows, to_arrays, write_rows
from contract.task import half_width, make_folds, score_named, standard_error
from stages import select
from stages.start import StageError
from tests.example import CONTRACT, make_params, make_rows, write_params

R2, RMSE = score_named("r2"), score_named("rmse")
BASELINE = np.array([-0.01, 0.0, -0.02])


def folds_of(mean: float, deviation: float = 0.03) -> np.ndarray:
    """Give three fold scores of this mean, with a standard error of deviation / sqrt(3)."""
    return mean + deviation * np.array([-1.0, 0.0, 1.0])


def leaderboard() -> list[dict[str, str]]:
    with select.LEADERBOARD.open(newline="") as file:
        return list(csv.DictReader(file))


def train_arrays() -> tuple[np.ndarray, np.ndarray]:
    return to_arrays(read_rows(select.TRAIN_ROWS), CONTRACT)


@pytest.mark.parametrize(
    ("means", "tie_standard_errors", "winner"),
    [
        ({"simple": 0.80, "complex": 0.90}, 1.0, "complex"),
        ({"simple": 0.89, "complex": 0.90}, 1.0, "simple"),  # within 0.017
        ({"simple": 0.88, "complex": 0.90}, 1.0, "complex"),
        ({"simple": 0.88, "complex": 0.90}, 2.0, "simple"),
        ({"simple": 0.8999, "complex": 0.90}, 0.0, "complex"),
        ({"simple": 0.90, "complex": 0.90}, 0.0, "simple"),
        ({"a": 0.80, "b": 0.889, "c": 0.90, "d": 0.895}, 1.0, "b"),
        ({"ridge": 0.89, "tree": 0.70, "ensemble": 0.90}, 1.0, "ridge"),
        ({"ridge": 0.85, "tree": 0.70, "ensemble": 0.90}, 1.0, "ensemble"),
    ],
)
def test_of_those_that_tie_with_the_best_the_simplest_wins(means, tie_standard_errors, winner):
    fold_scores = {name: folds_of(mean) for name, mean in means.items()}

    assert select.choose(fold_scores, BASELINE, R2, tie_standard_errors) == winner


@pytest.mark.parametrize(
    ("means", "winner"),
    [({"simple": 9.0, "complex": 8.0}, "complex"), ({"simple": 8.01, "complex": 8.0}, "simple")],
)
def test_of_errors_the_least_wins(means, winner):
    fold_scores = {name: folds_of(mean) for name, mean in means.items()}

    assert select.choose(fold_scores, folds_of(10.0), RMSE, 1.0) == winner


def test_candidate_that_is_no_better_than_the_baseline_does_not_win_by_a_tie():
    fold_scores = {"simple": folds_of(-0.02), "complex": folds_of(0.01, deviation=0.3)}

    assert select.choose(fold_scores, BASELINE, R2, 1.0) == "complex"


@given(
    means=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    tie=st.floats(0, 3),
    higher_is_better=st.booleans(),
)
def test_winner_beats_the_baseline_and_no_simpler_one_comes_as_near_to_the_best(
    means, tie, higher_is_better
):
    score = R2 if higher_is_better else RMSE
    fold_scores = {str(place): folds_of(mean) for place, mean in enumerate(means)}
    gains = [score.gain(scores.mean(), 0.0) for scores in fold_scores.values()]

    if max(gains) <= 0:
        with pytest.raises(StageError, match="No candidate beats the baseline's"):
            select.choose(fold_scores, np.zeros(3), score, tie)
        return
    winner = int(select.choose(fold_scores, np.zeros(3), score, tie))

    margin = tie * standard_error(folds_of(0))
    assert gains[winner] > 0
    assert gains[winner] >= max(gains) - margin - 1e-9
    assert all(gain <= 0 or gain < max(gains) - margin + 1e-9 for gain in gains[:winner])


def test_leaderboard_holds_every_candidate_and_the_baseline_best_first(tuned):
    select.main()

    table = leaderboard()
    assert {row["candidate"] for row in table} == {"linear", "ridge", "decision_tree", "baseline"}
    means = [float(row["mean"]) for row in table]
    assert means == sorted(means, reverse=True)
    assert table[-1]["candidate"] == "baseline"
    assert {row["score"] for row in table} == {"r2_score"}
    chosen = [row["candidate"] for row in table if row["chosen"] == "True"]
    assert chosen == [read_figures(select.METRICS)["candidate"]]
    for row in table[:-1]:
        path = Path("metrics/tune") / row["candidate"] / "best.json"
        fold_scores = np.array(read_figures(path)["fold_scores"])
        assert float(row["mean"]) == pytest.approx(fold_scores.mean(), rel=1e-4)
        assert float(row["standard_error"]) == pytest.approx(standard_error(fold_scores), rel=1e-3)


def test_baseline_is_scored_on_the_folds_of_the_candidates(tuned):
    select.main()

    X, y = train_arrays()
    scores = cross_val_score(DummyRegressor(), X, y, cv=make_folds(3, make_params().seed))
    measured = read_figures(select.METRICS)["baseline"]["r2_score"]
    assert measured == pytest.approx(scores.mean(), rel=1e-4)


def test_winner_is_refitted_on_all_train_rows_with_its_best_hyperparameters(tuned):
    write_params({"candidates": ["decision_tree"], "tune.max_rows": 60})

    select.main()

    X, y = train_arrays()
    params = make_params()
    best = read_figures(Path("metrics/tune/decision_tree/best.json"))["hyperparameters"]
    expected = make_candidate(
        CONTRACT, params.preprocessing, params.models["decision_tree"], "", params.seed
    ).set_params(model__max_depth=best["max_depth"])
    chosen = joblib.load(select.CHOSEN)
    assert chosen["model"].max_depth == best["max_depth"]
    np.testing.assert_array_equal(chosen.predict(X), expected.fit(X, y).predict(X))
    assert read_figures(select.METRICS)["n_train_rows"] == 160


def test_interval_comes_from_the_residuals_of_the_folds(tuned):
    write_params({"candidates": ["linear"], "prediction.level": 0.8})

    select.main()

    X, y = train_arrays()
    params = make_params()
    linear = make_candidate(CONTRACT, params.preprocessing, params.models["linear"], "", 1)
    y_pred = cross_val_predict(linear, X, y, cv=make_folds(3, params.seed))
    assert read_figures(select.METRICS)["interval"] == {
        "level": 0.8,
        "half_width": pytest.approx(half_width(y, y_pred, 0.8), rel=1e-4),
    }


def test_too_few_rows_for_the_level_of_the_interval_are_refused_in_words(tuned):
    write_rows(make_rows(30), select.TRAIN_ROWS)
    write_params({"prediction.level": 0.99})

    with pytest.raises(StageError, match=r"^30 train rows are too few .* prediction\.level 0\.99"):
        select.main()

    assert not select.CHOSEN.exists()


def test_error_puts_the_least_first_and_is_named_in_full(parted, run_tune):
    write_params({"score": "rmse"})
    for name in ("linear", "ridge", "decision_tree"):
        run_tune(name)

    select.main()

    means = [float(row["mean"]) for row in leaderboard()]
    assert means == sorted(means)
    assert means[0] > 0
    assert "root_mean_squared_error" in read_figures(select.METRICS)


def test_candidates_that_were_removed_are_forgotten_however_good_they_were(tuned):
    best = Path("metrics/tune/linear/best.json")
    wonderful = json.loads(best.read_text()) | {"fold_scores": [1.0, 1.0, 1.0]}
    best.write_text(json.dumps(wonderful))
    Path("metrics/tune/.gitignore").write_text("")
    write_params({"candidates": ["ridge", "decision_tree"]})

    select.main()

    assert {row["candidate"] for row in leaderboard()} == {"ridge", "decision_tree", "baseline"}
    kept = {path.name for path in Path("metrics/tune").iterdir()}
    assert kept == {"ridge", "decision_tree", ".gitignore"}


def test_nobody_wins_when_there_is_nothing_to_learn(parted, run_tune):
    rows = read_rows(select.TRAIN_ROWS)
    noise = np.random.default_rng(0).permutation(rows["rent"])
    write_rows(rows.assign(rent=noise), select.TRAIN_ROWS)
    write_params({"candidates": ["decision_tree"]})
    run_tune("decision_tree")

    with pytest.raises(StageError, match=r"^No candidate beats the baseline's r2_score -0\.0\d+; "):
        select.main()

    assert not select.CHOSEN.exists()
    assert not select.METRICS.exists()


@pytest.mark.parametrize(
    ("kind", "ensemble"), [("voting", VotingRegressor), ("stacking", StackingRegressor)]
)
def test_ensemble_competes_as_one_more_candidate(kind, ensemble, tuned):
    members = ["ridge", "decision_tree"]
    params = write_params({"select.ensemble": {"kind": kind, "members": members}})

    select.main()

    pipelines, _ = select.tuned(params)
    combined = ensemble([(name, pipelines[name]) for name in members])
    scores = cross_val_score(combined, *train_arrays(), cv=make_folds(3, params.seed))
    row = next(row for row in leaderboard() if row["candidate"] == "ensemble")
    assert float(row["mean"]) == pytest.approx(scores.mean(), rel=1e-4)


def test_ensemble_that_is_best_is_chosen_and_refitted(parted, run_tune):
    """Two trees that split at random err differently, so that their mean errs less."""
    trees = {
        f"models.tree_{seed}": {
            "class": "sklearn.tree.DecisionTreeRegressor",
            "args": {"splitter": "random", "random_state": seed},
        }
        for seed in (1, 2)
    }
    members = ["tree_1", "tree_2"]
    ensemble = {"kind": "voting", "members": members}
    params = write_params(
        trees
        | {"candidates": members, "select.ensemble": ensemble, "select.tie_standard_errors": 0}
    )
    for name in members:
        run_tune(name)

    select.main()

    assert read_figures(select.METRICS)["candidate"] == "ensemble"
    X, y = train_arrays()
    alone = [pipeline.fit(X, y).predict(X) for pipeline in select.tuned(params)[0].values()]
    np.testing.assert_allclose(joblib.load(select.CHOSEN).predict(X), np.mean(alone, axis=0))


def test_same_inputs_leave_the_same_bytes(tuned):
    made = []
    for _ in range(2):
        select.main()
        outs = (select.CHOSEN, select.LEADERBOARD, select.METRICS)
        made.append([path.read_bytes() for path in outs])

    assert made[0] == made[1]
