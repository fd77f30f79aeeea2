"""From params to pipelines: what each candidate's estimator gets to see."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import AdaBoostRegressor
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, PowerTransformer, StandardScaler

from contract.errors import ContractError
from contract.params import Component, Params
from contract.preprocessing import ESTIMATOR, make_candidate
from contract.rows import to_arrays
from tests.example import (
    AREA,
    CONDITION,
    HEATING,
    NUMBERS_ONLY,
    RENT,
    ROOMS,
    WITH_GAPS,
    make_params,
    make_rows,
)

POWER = {"class": "sklearn.preprocessing.PowerTransformer"}
CROSS = {
    "class": "sklearn.preprocessing.PolynomialFeatures",
    "args": {"degree": 2, "interaction_only": True, "include_bias": False},
}
QUANTILES = {"class": "sklearn.preprocessing.QuantileTransformer", "args": {"n_quantiles": 10}}


def candidate(params: Params, name: str = "ridge"):
    return make_candidate(
        params.contract, params.preprocessing, params.models[name], name, params.seed
    )


def seen(changes: dict, name: str = "ridge", n_rows: int = 60) -> np.ndarray:
    """Give what the estimator of a fitted candidate sees of the rows it was fitted on."""
    params = make_params(changes)
    X, y = to_arrays(make_rows(n_rows, contract=params.contract), params.contract)
    return np.asarray(candidate(params, name).fit(X, y)[:-1].transform(X))


def parts_of(pipeline) -> list:
    """List everything in a pipeline that can be fitted, however deep."""
    return [pipeline, *filter(lambda part: hasattr(part, "fit"), pipeline.get_params().values())]


def test_numbers_are_scaled_categories_are_one_hot_and_ranks_are_scaled():
    rows = make_rows(60)

    X = seen({})

    assert X.shape == (60, 2 + 3 + 1)
    np.testing.assert_allclose(X[:, [0, 1, 5]].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X[:, [0, 1, 5]].std(axis=0), 1)
    expected = np.array([rows["heating"] == category for category in HEATING["categories"]]).T
    np.testing.assert_array_equal(X[:, 2:5], expected)


def test_steps_of_a_kind_apply_to_all_features_of_that_kind_and_no_other():
    changes = {"preprocessing.numeric": [POWER], "preprocessing.ordinal": []}

    X = seen(changes)

    area_and_rooms = to_arrays(make_rows(60), make_params().contract)[0][:, :2]
    np.testing.assert_allclose(X[:, :2], PowerTransformer().fit_transform(area_and_rooms))
    assert set(X[:, 5]) == {0.0, 1.0, 2.0}


def test_steps_of_a_feature_stand_in_place_of_its_kinds():
    X = seen({"preprocessing.features": {"area": [POWER], "condition": []}})

    encoded = to_arrays(make_rows(60), make_params().contract)[0]
    blocks = [
        PowerTransformer().fit_transform(encoded[:, [0]]),
        StandardScaler().fit_transform(encoded[:, [1]]),
        OneHotEncoder(sparse_output=False).fit_transform(encoded[:, [2]]),
        encoded[:, [3]],
    ]
    np.testing.assert_allclose(X, np.hstack(blocks))


def test_steps_of_a_candidate_change_that_candidate_alone():
    changes = {"models.ridge.preprocessing": {"numeric": [POWER]}}

    np.testing.assert_allclose(seen(changes, "linear"), seen({}, "linear"))
    assert not np.allclose(seen(changes, "ridge"), seen({}, "ridge"))
    np.testing.assert_allclose(seen(changes)[:, 2:], seen({})[:, 2:])


@pytest.mark.parametrize("name", ["decision_tree", "random_forest", "ada_boost", "xgboost"])
def test_trees_are_not_scaled(name):
    params = make_params()
    steps = params.models[name].preprocessing.applied_to(params.preprocessing)

    assert steps.numeric == steps.ordinal == ()


def test_tree_sees_numbers_as_they_are():
    encoded = to_arrays(make_rows(60), make_params().contract)[0]

    np.testing.assert_array_equal(seen({}, "decision_tree")[:, [0, 1, 5]], encoded[:, [0, 1, 3]])


def test_joint_steps_see_all_columns_side_by_side():
    X = seen({"preprocessing.joint": [CROSS]})

    assert X.shape == (60, 6 + 6 * 5 // 2)
    np.testing.assert_allclose(X[:, 6], X[:, 0] * X[:, 1])


def test_without_permitted_gaps_nothing_is_imputed():
    assert not any(isinstance(part, SimpleImputer) for part in parts_of(candidate(make_params())))


def test_gaps_are_filled_before_the_steps_only_where_the_contract_permits_them():
    contract = {"target": RENT, "features": [AREA | {"missing": True}, ROOMS, HEATING]}
    params = make_params({"contract": contract, "preprocessing.numeric": []})
    X, y = to_arrays(make_rows(60, contract=params.contract), params.contract)
    fitted = candidate(params).fit(X, y)

    told = fitted[:-1].transform(np.array([[np.nan, 3, 0]]))

    assert told.tolist() == [[np.nanmedian(X[:, 0]), 3, 1, 0, 0]]
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict(np.array([[50, np.nan, 0]]))


def test_missing_category_becomes_the_most_frequent_one_and_every_row_gets_a_prediction():
    params = make_params({"contract": WITH_GAPS})
    X, y = to_arrays(make_rows(200, contract=params.contract), params.contract)
    fitted = candidate(params).fit(X, y)

    commonest = np.bincount(X[~np.isnan(X[:, 2]), 2].astype(int)).argmax()
    told = fitted[:-1].transform(np.full((1, 4), np.nan))

    assert np.isnan(X).any(axis=0).all()
    assert told[0, 2:5].tolist() == np.eye(3)[commonest].tolist()
    assert np.isfinite(fitted.predict(X)).all()


def test_feature_with_steps_of_its_own_is_imputed_as_its_kind():
    params = make_params(
        {"contract": WITH_GAPS, "preprocessing.features": {"area": [POWER], "heating": []}}
    )
    X, y = to_arrays(make_rows(200, contract=params.contract), params.contract)

    told = candidate(params).fit(X, y)[:-1].transform(X)

    assert np.isfinite(told).all()


def test_encoder_knows_the_categories_of_the_contract_that_training_lacks():
    params = make_params()
    X, y = to_arrays(make_rows(60), params.contract)
    trained_on = X[:, 2] != 2
    fitted = candidate(params).fit(X[trained_on], y[trained_on])

    told = fitted[:-1].transform(X[~trained_on])

    assert (~trained_on).any()
    assert np.unique(told[:, 2:5], axis=0).tolist() == [[0, 0, 1]]
    assert np.isfinite(fitted.predict(X)).all()


def test_categories_given_in_params_stay():
    encoder = {
        "class": "sklearn.preprocessing.OneHotEncoder",
        "args": {"categories": [[0.0, 1.0, 2.0, 3.0]], "sparse_output": False},
    }

    assert seen({"preprocessing.nominal": [encoder]}).shape == (60, 2 + 4 + 1)


def test_contract_without_categories_and_one_without_numbers_make_pipelines():
    assert seen({"contract": NUMBERS_ONLY}).shape == (60, 2)
    assert seen({"contract": {"target": RENT, "features": [HEATING, CONDITION]}}).shape == (60, 4)


def test_argument_that_is_itself_a_class_is_built_with_its_arguments():
    changes = {
        "models.ada_boost.args": {
            "estimator": {"class": "sklearn.tree.DecisionTreeRegressor", "args": {"max_depth": 2}},
            "n_estimators": 3,
        }
    }
    pipeline = candidate(make_params(changes), "ada_boost")

    X, y = to_arrays(make_rows(60), make_params().contract)
    boosted = pipeline.fit(X, y)[ESTIMATOR]

    assert isinstance(boosted, AdaBoostRegressor)
    assert {tree.get_depth() for tree in boosted.estimators_} == {2}


def test_argument_that_only_looks_like_a_class_stays_as_it_is():
    args = {"kernel": "precomputed", "kernel_params": {"class": "x", "gamma": 1}}
    component = {"class": "sklearn.kernel_ridge.KernelRidge", "args": args}

    estimator = candidate(make_params({"models.ridge": component}))[ESTIMATOR]

    assert estimator.kernel_params == {"class": "x", "gamma": 1}


def test_seed_reaches_every_part_that_takes_one_unless_params_name_another():
    changes = {
        "seed": 23,
        "preprocessing.joint": [QUANTILES],
        "models.ada_boost.args": {"estimator": {"class": "sklearn.tree.DecisionTreeRegressor"}},
        "models.ridge.args": {"random_state": 7},
    }
    params = make_params(changes)

    def seeds(name: str) -> list[int]:
        parts = parts_of(candidate(params, name))
        return [part.random_state for part in parts if hasattr(part, "random_state")]

    assert seeds("ada_boost") == [23, 23, 23]
    assert seeds("ridge") == [23, 7]


def test_candidate_can_be_cloned_and_set_by_the_names_of_its_estimator():
    pipeline = clone(candidate(make_params())).set_params(model__alpha=2.5)

    assert pipeline[ESTIMATOR].alpha == 2.5
    assert isinstance(pipeline[0], ColumnTransformer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models.ridge.class": "sklearn.linear_model.Rigde"},
            r"^models\.ridge\.class is sklearn\.linear_model\.Rigde, but sklearn\.linear_model has "
            r"no Rigde\. Correct the name\.$",
        ),
        (
            {"models.ridge.class": "sklearn.linear_modle.Ridge"},
            r"^models\.ridge\.class is sklearn\.linear_modle\.Ridge, but there is no module "
            r"sklearn\.linear_modle\. Correct the name\.$",
        ),
        (
            {"models.ridge.class": "fastest.Tree", "models.ridge.requirements": "r-fast.txt"},
            r"^models\.ridge\.class is fastest\.Tree, but fastest is not installed\. Install it "
            r"with: uv pip install --requirement r-fast\.txt$",
        ),
        (
            {"models.ridge.class": "fastest.trees.Tree"},
            r"but fastest is not installed\. .*requirements\.txt$",
        ),
        (
            {"models.ridge.args": {"alhpa": 1}},
            r"^models\.ridge\.args are refused by sklearn\.linear_model\.Ridge: .*'alhpa'",
        ),
        (
            {"models.ridge.class": "collections.OrderedDict"},
            r"^models\.ridge\.args are refused by collections\.OrderedDict: it makes no estimator",
        ),
        (
            {"preprocessing.numeric": [POWER | {"args": {"methd": "x"}}]},
            r"^preprocessing\.numeric\.args are refused by .*PowerTransformer: .*'methd'",
        ),
        (
            {"preprocessing.features": {"area": [{"class": "sklearn.preprocessing.Power"}]}},
            r"^preprocessing\.features\.area\.class is .* has no Power\.",
        ),
        (
            {"preprocessing.joint": [{"class": "sklearn.preprocessing.Joint"}]},
            r"^preprocessing\.joint\.class is .* has no Joint\.",
        ),
        (
            {
                "contract": WITH_GAPS,
                "preprocessing.impute.numeric": {"class": "sklearn.impute.Simple"},
            },
            r"^preprocessing\.impute\.numeric\.class is .* has no Simple\.",
        ),
    ],
)
def test_class_or_argument_that_does_not_exist_is_told_with_its_key(changes, message):
    with pytest.raises(ContractError, match=message):
        candidate(make_params(changes))


def test_component_without_arguments_needs_none():
    assert Component.model_validate(POWER).args == {}
