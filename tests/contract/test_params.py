"""params.yaml: what is wrong in it is told in one message that names key, value and expectation."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from ruamel.yaml import YAML

from contract.errors import ContractError
from contract.features import Contract
from contract.params import Params, load_params
from tests.contract.strategies import contracts
from tests.example import AREA, CONTRACT, HEATING, PLAIN, ROOMS, ROOT, changed, raw_params

GONE = object()


def refusal(raw: dict, tmp_path: Path) -> str:
    """Give the message under which params are refused, without the file's name."""
    path = tmp_path / "params.yaml"
    YAML(typ="safe").dump(raw, path)
    with pytest.raises(ContractError) as error:
        load_params(path)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return "\n".join(line.removeprefix(f"{path}: ") for line in lines)


def without(raw: dict, path: str) -> dict:
    *sections, key = path.split(".")
    raw = changed(raw, {})
    section = raw
    for name in sections:
        section = section[name]
    del section[key]
    return raw


def features(*changes: dict) -> list[dict]:
    return [AREA, ROOMS, HEATING, *changes]


def heated(**change) -> list[dict]:
    return [AREA, {key: v for key, v in (HEATING | change).items() if v is not GONE}]


def sized(**change) -> list[dict]:
    return [HEATING, {key: v for key, v in (AREA | change).items() if v is not GONE}]


def test_shipped_params_load():
    params = load_params(ROOT / "params.yaml")

    assert set(params.candidates) <= set(params.models)
    assert params.contract.names()


def test_example_of_these_tests_loads_as_it_is_written(tmp_path):
    YAML(typ="safe").dump(raw_params(), tmp_path / "params.yaml")

    assert load_params(tmp_path / "params.yaml").contract == CONTRACT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sede": 1}, "sede is not a known key; did you mean seed?"),
        ({"tune.n_flods": 5}, "tune.n_flods is not a known key; did you mean n_folds?"),
        (
            {"contract.features": heated(knd="nominal")},
            "contract.features[heating].knd is not a known key; did you mean kind?",
        ),
        (
            {"contract.target": {"name": "rent", "categories": ["low", "high"]}},
            "contract.target.categories is not a known key; expected one of name, dtype, range, "
            "unit, description, former_names",
        ),
        (
            {"models.ridge.gird": {"alpha": [1]}},
            "models.ridge.gird is not a known key; did you mean grid?",
        ),
        (
            {"models.ridge.preprocessing": {"numerc": []}},
            "models.ridge.preprocessing.numerc is not a known key; did you mean numeric?",
        ),
        (
            {"preprocessing.impute.numeric": {"class": "a.B", "arg": {}}},
            "preprocessing.impute.numeric.arg is not a known key; did you mean args?",
        ),
        (
            {"select.ensemble.membres": []},
            "select.ensemble.membres is not a known key; did you mean members?",
        ),
    ],
)
def test_misspelt_key_is_named_with_the_one_that_was_meant(changes, message, tmp_path):
    assert refusal(changed(raw_params(), changes), tmp_path) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune.n_folds": "abc"}, "tune.n_folds is 'abc', expected a whole number"),
        ({"tune.n_folds": "5"}, "tune.n_folds is '5', expected a whole number"),
        ({"tune.n_folds": 5.5}, "tune.n_folds is 5.5, expected a whole number"),
        ({"tune.n_folds": True}, "tune.n_folds is True, expected a whole number"),
        ({"tune.n_folds": None}, "tune.n_folds is None, expected a whole number"),
        ({"tune.n_folds": 1}, "tune.n_folds is 1, expected 2 or more"),
        ({"tune.max_rows": "all"}, "tune.max_rows is 'all', expected a whole number"),
        ({"tune": 5}, "tune is 5, expected keys with values"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"score": 2}, "score is 2, expected a text"),
        ({"split.test_size": 0}, "split.test_size is 0, expected a number above 0"),
        ({"split.test_size": 1.5}, "split.test_size is 1.5, expected a number below 1"),
        ({"split.test_size": "a"}, "split.test_size is 'a', expected a number"),
        ({"prediction.clip": "yes"}, "prediction.clip is 'yes', expected true or false"),
        ({"gate.floor": float("nan")}, "gate.floor is nan, expected a finite number"),
        ({"data.source": ""}, "data.source is '', expected a text that is not empty"),
        ({"data.separator": "::"}, "data.separator is '::', expected auto or one character"),
        (
            {"data.format": "cvs"},
            "data.format is 'cvs', expected 'auto', 'csv', 'tsv', 'parquet', 'xlsx' or 'jsonl'",
        ),
        (
            {"contract.features": heated(kind="nominl")},
            "contract.features[heating].kind is 'nominl', expected 'numeric', 'nominal' or "
            "'ordinal'",
        ),
        (
            {"contract.features": heated(categories="gas")},
            "contract.features[heating].categories is 'gas', expected a list",
        ),
        (
            {"contract.features": heated(categories=["gas", False])},
            "contract.features[heating].categories[1] is False, expected a text",
        ),
        (
            {"contract.features": heated(categories=["gas", " oil"])},
            "contract.features[heating].categories[1] is ' oil', expected a name without blanks "
            "at its ends",
        ),
        (
            {"contract.features": sized(range=["8", 500])},
            "contract.features[area].range[0] is '8', expected a number",
        ),
        (
            {"contract.features": sized(range=[8, 500, 1000])},
            "contract.features[area].range is [8, 500, 1000], expected 2 items or fewer",
        ),
        (
            {"contract.features": sized(range=[8])},
            "contract.features[area].range[1] is missing, expected a value",
        ),
        (
            {"contract.features": sized(range=[8, float("inf")])},
            "contract.features[area].range[1] is inf, expected a finite number",
        ),
        ({"contract.features": []}, "contract.features is [], expected 1 item or more"),
        (
            {"models.ridge.class": "Ridge"},
            "models.ridge.class is 'Ridge', expected a class with its module: module.Class",
        ),
        ({"models.ridge.grid": {"alpha": 3}}, "models.ridge.grid.alpha is 3, expected a list"),
        (
            {"models.ridge.grid": {"alpha": []}},
            "models.ridge.grid.alpha is [], expected 1 item or more",
        ),
        ({"models.ridge.args": [1]}, "models.ridge.args is [1], expected keys with values"),
        (
            {"preprocessing.numeric": ["sklearn.preprocessing.StandardScaler"]},
            "preprocessing.numeric[0] is 'sklearn.preprocessing.StandardScaler', expected keys "
            "with values",
        ),
        (
            {"models.my ridge": {"class": "sklearn.linear_model.Ridge"}},
            "models.my ridge is 'my ridge', expected a name of small letters, digits and _, a "
            "letter first",
        ),
        (
            {"candidates": ["My Ridge"]},
            "candidates[0] is 'My Ridge', expected a name of small letters, digits and _, a "
            "letter first",
        ),
        ({"candidates": []}, "candidates is [], expected 1 item or more"),
    ],
)
def test_wrong_value_is_named_with_its_key_and_what_was_expected(changes, message, tmp_path):
    raw = raw_params()
    for path, value in changes.items():  # a key may hold a blank, but no dot
        raw = changed(raw, {path: value})

    assert refusal(raw, tmp_path) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"contract.features": heated(categories=["gas", "oil", "gas"])},
            "contract.features[heating]: categories list 'gas' twice, expected each once",
        ),
        (
            {"contract.features": heated(categories=["gas"])},
            "contract.features[heating]: categories are ['gas'], expected two or more",
        ),
        (
            {"contract.features": heated(categories=GONE)},
            "contract.features[heating]: categories are [], expected two or more",
        ),
        (
            {"contract.features": heated(range=[0, 2])},
            "contract.features[heating]: range is (0.0, 2.0), expected none where kind is nominal",
        ),
        (
            {"contract.features": heated(kind="ordinal", dtype="int")},
            "contract.features[heating]: dtype is 'int', expected none where kind is ordinal",
        ),
        (
            {"contract.features": sized(range=[500, 8])},
            "contract.features[area]: range is [500, 8], expected the lower end first",
        ),
        (
            {"contract.features": sized(range=[8, 8])},
            "contract.features[area]: range is [8, 8], expected the lower end first",
        ),
        (
            {"contract.target": {"name": "rent", "range": [1, 0]}},
            "contract.target: range is [1, 0], expected the lower end first",
        ),
        (
            {"contract.features": sized(range=GONE)},
            "contract.features[area]: range is missing, expected [lowest, highest] for a number",
        ),
        (
            {"contract.features": sized(categories=["small", "large"])},
            "contract.features[area]: categories are ['small', 'large'], expected none where "
            "kind is numeric",
        ),
        (
            {"contract.features": features(AREA)},
            "contract: 'area' names two columns, expected every name and former name once",
        ),
        (
            {"contract.features": [AREA, ROOMS | {"former_names": ["area"]}]},
            "contract: 'area' names two columns, expected every name and former name once",
        ),
        (
            {"contract.features": [AREA, ROOMS | {"former_names": ["monthly rent"]}]},
            "contract: 'monthly rent' names two columns, expected every name and former name once",
        ),
        (
            {"contract.features": [AREA | {"name": "(prediction)"}]},
            "contract: '(prediction)' stands for the model's predictions, expected another",
        ),
        (
            {"contract.target.name": "(prediction)"},
            "contract: '(prediction)' stands for the model's predictions, expected another",
        ),
        (
            {"candidates": ["linear", "ridge", "linear"]},
            "candidates list 'linear' twice, expected each once",
        ),
        (
            {"models.baseline": {"class": "sklearn.dummy.DummyRegressor"}},
            "models.baseline uses a reserved name, choose another",
        ),
        (
            {"select.ensemble": {"kind": "voting", "members": ["ridge"]}},
            "select.ensemble.members are ['ridge'], expected two or more candidates",
        ),
        (
            {"select.ensemble": {"kind": "voting", "members": ["ridge", "ridge"]}},
            "select.ensemble.members list 'ridge' twice, expected each once",
        ),
        (
            {"select.ensemble": {"kind": "stacking", "members": ["ridge", "svr"]}},
            "select.ensemble.members names 'svr', expected names of candidates: linear, ridge, "
            "decision_tree",
        ),
        (
            {"preprocessing.features": {"aera": []}},
            "preprocessing.features names 'aera', expected names of the contract: area, rooms, "
            "heating, condition",
        ),
        (
            {"models.ridge.preprocessing": {"features": {"aera": []}}},
            "models.ridge.preprocessing.features names 'aera', expected names of the contract: "
            "area, rooms, heating, condition",
        ),
        (
            {"data.missing": ["NA", "gas"]},
            "data.missing holds 'gas', which is a category of heating; expected words that mean a "
            "gap in every column",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_told(changes, message, tmp_path):
    assert refusal(raw_params(changes), tmp_path) == message


def test_unknown_candidate_is_told_with_the_catalogue(tmp_path):
    message = refusal(raw_params({"candidates": ["linear", "rigde"]}), tmp_path)

    assert message.startswith("candidates names 'rigde', expected names of models: ")
    assert {"linear", "ridge", "xgboost"} <= set(re.findall(r"\w+", message))


@pytest.mark.parametrize(
    "path",
    ["seed", "contract", "tune.n_folds", "models.ridge.class", "preprocessing.impute.ordinal"],
)
def test_missing_key_is_named(path, tmp_path):
    message = refusal(without(raw_params(), path), tmp_path)

    assert message == f"{path} is missing, expected a value"


def test_every_mistake_is_told_in_one_go_a_line_each(tmp_path):
    raw = changed(raw_params(), {"tune.n_folds": "abc", "seed": -1, "gate.flor": 1})

    assert refusal(raw, tmp_path).splitlines() == [
        "seed is -1, expected 0 or more",
        "tune.n_folds is 'abc', expected a whole number",
        "gate.flor is not a known key; did you mean floor?",
    ]


@pytest.mark.parametrize("path", list(Params.model_fields))
def test_every_section_refuses_a_value_of_another_type(path, tmp_path):
    wrong = "many" if path in {"seed", "candidates", "contract"} else 0.5

    assert refusal(changed(raw_params(), {path: wrong}), tmp_path).startswith(
        f"{path} is {wrong!r}, expected "
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " holds None, expected the sections of a run"),
        ("- seed\n- contract\n", " holds ['seed', 'contract'], expected the sections of a run"),
        ("seed: 1\nscore: r2\nseed: 2\n", ', line 3 is not valid YAML: found duplicate key "seed"'),
        ("seed: [1\n", ", line 2 is not valid YAML: expected ',' or ']'"),
        ("seed: *one\n", ", line 1 is not valid YAML: found undefined alias 'one'"),
        ("seed: !!python/name:os.system 1\n", ", line 1 is not valid YAML: could not determine"),
        ("seed: \0", " is not valid YAML: unacceptable character"),
    ],
)
def test_file_that_holds_no_sections_is_refused_in_words(text, message, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text)

    with pytest.raises(ContractError) as error:
        load_params(path)

    assert str(error.value).startswith(f"{path}{message}")


def test_file_that_is_missing_or_a_folder_is_refused_in_words(tmp_path):
    with pytest.raises(ContractError, match=r"none.yaml: No such file or directory. Run from"):
        load_params(tmp_path / "none.yaml")
    with pytest.raises(ContractError, match="Is a directory"):
        load_params(tmp_path)


def test_yaml_is_read_as_dvc_reads_it(tmp_path):
    text = json.dumps(raw_params()).replace('"test_size": 0.2', '"test_size": 1e-1')
    text = text.replace('"missing": ["NA"', '"missing": [no')  # a boolean under YAML 1.1
    (tmp_path / "params.yaml").write_text(text)

    params = load_params(tmp_path / "params.yaml")

    assert params.split.test_size == 0.1
    assert params.data.missing[0] == "no"


def test_contract_of_a_candidate_changes_only_what_it_names():
    raw = raw_params({"models.ridge.preprocessing": {"numeric": [], "features": {"area": []}}})
    params = Params.model_validate_json(json.dumps(raw), strict=True)

    steps = params.models["ridge"].preprocessing.applied_to(params.preprocessing)

    assert steps.numeric == ()
    assert steps.features == {"area": ()}
    assert (steps.nominal, steps.ordinal, steps.impute, steps.joint) == (
        params.preprocessing.nominal,
        params.preprocessing.ordinal,
        params.preprocessing.impute,
        params.preprocessing.joint,
    )


@given(contract=contracts())
def test_contract_travels_as_json_and_stays_the_same(contract):
    assert Contract.model_validate_json(contract.model_dump_json()) == contract


def test_domain_reads_as_words():
    area, rooms, heating, _ = CONTRACT.features
    assert [area.domain, rooms.domain, heating.domain, CONTRACT.target.domain] == [
        "8 to 500 m²",
        "1 to 12",
        "one of gas, district, electric",
        "0 to 20000 EUR/month",
    ]


def test_every_spelling_leads_to_one_name():
    assert CONTRACT.spelling_to_name() == {
        "area": "area",
        "rooms": "rooms",
        "heating": "heating",
        "type of heating": "heating",
        "condition": "condition",
        "rent": "rent",
        "monthly rent": "rent",
    }
    assert CONTRACT.names() == [feature["name"] for feature in PLAIN["features"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"drift.columns": {"aera": {"unseen_share": {"warn": 0, "fail": 1}}}},
            "drift.columns names 'aera', expected names of the contract: area, rooms, heating, "
            "condition, rent",
        ),
        ({"drift.min_row": 5}, "drift.min_row is not a known key; did you mean min_rows?"),
        ({"drift.min_rows": 0}, "drift.min_rows is 0, expected 1 or more"),
        ({"drift.chance.warn": 0}, "drift.chance.warn is 0, expected a number above 0"),
        (
            {"drift.limits.pairs": {"difference_of_pair": {"warn": 0.4, "fail": 0.3}}},
            "drift.limits.pairs.difference_of_pair: warn is 0.4, expected fail (0.3) or less",
        ),
        (
            {"drift.limits.pairs": {"difference_of_pair": {"warn": 0.4}}},
            "drift.limits.pairs.difference_of_pair.fail is missing, expected a value",
        ),
    ],
)
def test_wrong_limit_of_drift_is_named(changes, message, tmp_path):
    assert refusal(changed(raw_params(), changes), tmp_path) == message


def test_misspelt_measure_of_drift_is_named_with_those_there_are(tmp_path):
    changes = {"drift.columns": {"area": {"difference_of_mean": {"warn": 0, "fail": 1}}}}

    message = refusal(changed(raw_params(), changes), tmp_path)

    assert message.startswith("drift.columns.area.difference_of_mean is 'difference_of_mean', ")
    assert "'difference_of_means'" in message
