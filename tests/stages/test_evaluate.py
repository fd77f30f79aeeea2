"""The chosen model on the rows held back: whole, by group, by feature, beside the champion."""

import logging
from pathlib import Path
from xml.etree import ElementTree

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.dummy import DummyRegressor

from contract.champion import CHAMPION, Champion, read_champion
from contract.errors import ContractError
from contract.figures import read_figures
from contract.rows import read_rows, rows_sha256, to_arrays, write_rows
from contract.task import score_named
from stages import evaluate, select
from stages.score_champion import score_champion
from tests.example import (
    CONTRACT,
    HEATING,
    NUMBERS_ONLY,
    PLAIN,
    RENT,
    WITH_GAPS,
    make_params,
    make_rows,
    write_params,
)

R2 = score_named("r2")


def held_back() -> pd.DataFrame:
    return read_rows(evaluate.TEST_ROWS)


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(evaluate.PLOTS / name, keep_default_na=False, na_values=[""])


def predicted_of(chosen, params, rows) -> pd.DataFrame:
    return evaluate.predict(rows, chosen, 100.0, params)


def champion(**changes) -> Champion:
    fields = {
        "version": "0123456789ab",
        "candidate": "ridge",
        "metrics": {"r2_score": 0.77},
        "test_rows_sha256": "0" * 64,
        "artifact_md5": "0" * 32 + ".dir",
    }
    return Champion(**fields | changes)


def test_figures_are_those_of_scikit_learn_on_the_test_rows(selected):
    evaluate.main()

    X, y = to_arrays(held_back(), CONTRACT)
    y_pred = np.clip(joblib.load(evaluate.CHOSEN).predict(X), *CONTRACT.target.range)
    half_width = read_figures(select.METRICS)["interval"]["half_width"]
    found = read_figures(evaluate.METRICS)
    assert list(found)[:4] == ["candidate", "score", "higher_is_better", "n_test_rows"]
    assert found == {
        "candidate": read_figures(select.METRICS)["candidate"],
        "score": "r2_score",
        "higher_is_better": True,
        "n_test_rows": 40,
        "r2_score": pytest.approx(metrics.r2_score(y, y_pred), rel=1e-4),
        "root_mean_squared_error": pytest.approx(
            metrics.root_mean_squared_error(y, y_pred), rel=1e-4
        ),
        "mean_absolute_error": pytest.approx(metrics.mean_absolute_error(y, y_pred), rel=1e-4),
        "median_absolute_error": pytest.approx(metrics.median_absolute_error(y, y_pred), rel=1e-4),
        "max_error": pytest.approx(metrics.max_error(y, y_pred), rel=1e-4),
        "confidence": found["confidence"],
        "interval": {
            "level": 0.9,
            "half_width": half_width,
            "coverage": pytest.approx(np.mean(np.abs(y - y_pred) <= half_width)),
        },
        "champion": {"compared": "there is no champion"},
    }


def test_points_tell_each_test_row_with_its_residual_and_its_interval(selected):
    evaluate.main()

    points, rows = table("predictions.csv"), held_back()
    np.testing.assert_allclose(points["actual"], rows["rent"], rtol=1e-4)
    np.testing.assert_allclose(points["residual"], points["actual"] - points["predicted"], atol=0.2)
    assert (points["lower"] <= points["predicted"]).all()
    assert (points["predicted"] <= points["upper"]).all()


def test_no_more_points_are_drawn_than_allowed(selected):
    write_params({"evaluate.max_points": 7})

    evaluate.main()

    assert len(table("predictions.csv")) == 7
    assert read_figures(evaluate.METRICS)["n_test_rows"] == 40


def test_confidence_holds_the_score_follows_the_seed_and_widens_with_its_level(selected):
    chosen, rows = joblib.load(evaluate.CHOSEN), held_back()

    def ends(**changes) -> dict:
        params = make_params({path.replace("__", "."): v for path, v in changes.items()})
        predicted = predicted_of(chosen, params, rows)
        return evaluate.confidence_interval(predicted, R2, params)

    narrow, wide = ends(evaluate__confidence=0.5), ends(evaluate__confidence=0.99)
    score = metrics.r2_score(
        *predicted_of(chosen, make_params(), rows)[["actual", "predicted"]].T.values
    )
    assert wide["lower"] < narrow["lower"] < score < narrow["upper"] < wide["upper"]
    assert ends() == ends() != ends(seed=2)


def test_confidence_interval_of_a_mean_error_is_that_of_the_textbook():
    rng = np.random.default_rng(0)
    predicted = pd.DataFrame({"actual": rng.normal(0, 1, 400), "predicted": 0.0})
    params = make_params({"evaluate.n_resamples": 3000})

    ends = evaluate.confidence_interval(predicted, score_named("mae"), params)

    errors = predicted["actual"].abs()
    margin = 1.96 * errors.std() / 20
    assert ends["lower"] == pytest.approx(errors.mean() - margin, abs=0.006)
    assert ends["upper"] == pytest.approx(errors.mean() + margin, abs=0.006)


def test_confidence_is_the_same_however_few_resamples_are_held_at_once(selected, monkeypatch):
    params = make_params()
    predicted = predicted_of(joblib.load(evaluate.CHOSEN), params, held_back())
    at_once = evaluate.confidence_interval(predicted, R2, params)

    monkeypatch.setattr(evaluate, "BOOTSTRAP_CELLS", 100)

    assert evaluate.confidence_interval(predicted, R2, params) == pytest.approx(at_once)


def test_every_group_of_every_categorical_feature_is_measured_with_its_rows(selected):
    evaluate.main()

    slices, rows = table("slices.csv"), held_back()
    points = table("predictions.csv")
    assert list(zip(slices["feature"], slices["group"], strict=True)) == [
        (feature.name, group) for feature in CONTRACT.features for group in feature.categories
    ]
    assert slices.groupby("feature")["n_rows"].sum().to_dict() == {"heating": 40, "condition": 40}
    for part in slices.itertuples():
        members = points[(rows[part.feature] == part.group).to_numpy()]
        assert part.n_rows == len(members)
        expected = metrics.root_mean_squared_error(members["actual"], members["predicted"])
        assert part.root_mean_squared_error == pytest.approx(expected, rel=1e-3)
        if part.n_rows >= evaluate.CONFIDENCE_FROM_ROWS:
            assert part.lower <= part.r2_score <= part.upper
        else:
            assert np.isnan(part.lower)


def test_bad_group_shows(selected):
    params, rows = make_params(), make_rows(300, seed=5)
    predicted = predicted_of(joblib.load(evaluate.CHOSEN), params, rows)
    electric = (rows["heating"] == "electric").to_numpy()
    predicted.loc[electric, "predicted"] += 500

    slices = evaluate.measure_slices(rows, predicted, R2, params).set_index("group")

    assert slices["mean_absolute_error"].idxmax() == "electric"
    assert slices.loc["electric", "mean_absolute_error"] == pytest.approx(500, abs=20)


def test_group_without_rows_or_with_too_few_has_no_score():
    params, rows = make_params(), make_rows(9)
    rows["heating"] = ["gas"] * 8 + ["district"]
    predicted = pd.DataFrame({"actual": rows["rent"], "predicted": rows["rent"] + 1.0})

    slices = evaluate.measure_slices(rows, predicted, R2, params).set_index("group")

    assert slices["n_rows"].tolist()[:3] == [8, 1, 0]
    assert slices["mean_absolute_error"].isna().tolist()[:3] == [False, True, True]


def test_rows_that_leave_a_category_out_are_a_group_of_their_own():
    params = make_params({"contract": WITH_GAPS})
    rows = make_rows(300, contract=params.contract)
    predicted = pd.DataFrame({"actual": rows["rent"], "predicted": rows["rent"] + 1.0})

    slices = evaluate.measure_slices(rows, predicted, R2, params)

    gaps = slices[slices["group"] == evaluate.GAP].set_index("feature")["n_rows"].to_dict()
    assert gaps == {name: int(rows[name].isna().sum()) for name in ("heating", "condition")}
    assert slices.groupby("feature")["n_rows"].sum().tolist() == [300, 300]


@pytest.mark.parametrize(
    ("contract", "n_groups"), [(NUMBERS_ONLY, 0), (PLAIN, 6)], ids=["no groups", "tiny groups"]
)
def test_table_of_groups_has_all_its_columns_even_where_nothing_could_be_measured(
    contract, n_groups
):
    params = make_params({"contract": contract})
    rows = make_rows(2, contract=params.contract)
    predicted = pd.DataFrame({"actual": rows["rent"], "predicted": rows["rent"] + 1})

    slices = evaluate.measure_slices(rows, predicted, R2, params)

    assert len(slices) == n_groups
    assert list(slices)[:4] == ["feature", "group", "n_rows", "r2_score"]
    assert list(slices)[-2:] == ["lower", "upper"]
    assert slices["lower"].isna().all()


def test_feature_that_tells_most_is_the_most_important_and_losses_are_above_zero(selected):
    evaluate.main()

    importance = table("importance.csv")
    assert importance["feature"].iloc[0] == "area"
    assert set(importance["feature"]) == set(CONTRACT.names())
    assert importance["importance"].is_monotonic_decreasing
    assert importance["importance"].iloc[0] > 0.5


@pytest.mark.parametrize("score", ["r2", "rmse"])
def test_importance_is_a_loss_whatever_the_direction_of_the_score(score, selected):
    chosen, rows = joblib.load(evaluate.CHOSEN), make_rows(300, seed=9)

    importance = evaluate.measure_importance(rows, chosen, score_named(score), make_params())

    assert importance["importance"].iloc[0] > 0


def test_predictions_and_intervals_are_clipped_where_params_say_so(selected):
    low = {"target": RENT | {"range": [0, 800]}, "features": PLAIN["features"]}
    chosen, rows = joblib.load(evaluate.CHOSEN), held_back()

    clipped = predicted_of(chosen, make_params({"contract": low}), rows)
    free = predicted_of(chosen, make_params({"contract": low, "prediction.clip": False}), rows)

    assert clipped[["predicted", "lower", "upper"]].max().tolist() == [800, 800, 800]
    assert free["predicted"].max() > 900
    np.testing.assert_allclose(free["upper"] - free["predicted"], 100)


def test_model_however_bad_is_measured_and_not_refused(selected):
    X, y = to_arrays(held_back(), CONTRACT)
    joblib.dump(DummyRegressor(strategy="constant", constant=1e6).fit(X, y), evaluate.CHOSEN)

    evaluate.main()

    assert read_figures(evaluate.METRICS)["r2_score"] < -100


def test_picture_is_drawn_and_names_are_text_not_formulas(selected):
    prices = ["under $5", "$5_{ to $9", "over $9"]  # no formula, and would not be a valid one
    dear = {"name": "price_{band}", "kind": "nominal", "categories": prices}
    rows = held_back().rename(columns={"heating": dear["name"]})
    rows[dear["name"]] = rows[dear["name"]].replace(
        dict(zip(HEATING["categories"], prices, strict=True))
    )
    write_rows(rows, evaluate.TEST_ROWS)
    features = [dear if feature == HEATING else feature for feature in PLAIN["features"]]
    write_params({"contract": {"target": RENT | {"unit": "$/month"}, "features": features}})

    evaluate.main()

    picture = ElementTree.fromstring((evaluate.PLOTS / "overview.svg").read_text("utf-8"))
    assert picture.tag.endswith("svg")
    assert table("slices.csv")["group"].tolist()[:3] == prices


def test_same_inputs_leave_the_same_bytes_and_no_others(selected):
    made = []
    for _ in range(2):
        evaluate.main()
        paths = [evaluate.METRICS, *sorted(evaluate.PLOTS.iterdir())]
        made.append({path.name: path.read_bytes() for path in paths})

    assert made[0] == made[1]
    assert set(made[0]) == {
        "evaluation.json",
        "importance.csv",
        "overview.svg",
        "predictions.csv",
        "slices.csv",
    }
    assert str(selected).encode() not in b"".join(made[0].values())


def test_champion_on_the_same_rows_counts_with_its_recorded_score(selected):
    rows = held_back()
    record = champion(test_rows_sha256=rows_sha256(rows))
    CHAMPION.write_text(record.model_dump_json())

    evaluate.main()

    found = read_figures(evaluate.METRICS)["champion"]
    assert found == {"compared": "recorded", "r2_score": 0.77}


@pytest.mark.parametrize(
    "changes",
    [{}, {"metrics": {"max_error": 1.0}}],
    ids=["other rows", "score that is not on record"],
)
def test_champion_that_is_not_to_be_had_is_not_compared_and_told_so(changes, project, caplog):
    rows = make_rows(20)
    same = {"test_rows_sha256": rows_sha256(rows)} if changes else {}

    with caplog.at_level(logging.WARNING):
        found = score_champion(champion(**changes | same), rows, R2)

    assert found == {"compared": "not compared"}
    assert "the champion 0123456789ab cannot be scored" in caplog.text


def test_without_a_champion_there_is_nothing_to_compare_with(project):
    assert read_champion() is None
    assert score_champion(None, make_rows(5), R2) == {"compared": "there is no champion"}


@pytest.mark.parametrize("text", ["", "[]", '{"version": "1"}', "{broken"])
def test_champion_file_that_is_no_record_is_refused_in_words(text, project):
    Path(CHAMPION).write_text(text)

    with pytest.raises(ContractError, match=r"champion\.json is not a champion's record: .*"):
        read_champion()


def test_champion_is_read_as_it_was_written(project):
    CHAMPION.write_text(champion().model_dump_json(indent=2))

    assert read_champion() == champion()
