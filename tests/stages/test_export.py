"""The exported model: ONNX where it agrees with the pipeline, else skops, else nothing."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits

from contract.artifact import CARD, FINAL, MANIFEST, load_model, load_onnx, load_skops, sha256
from contract.features import Contract
from contract.figures import read_figures, write_figures
from contract.params import Params, load_params
from contract.preprocessing import make_candidate
from contract.read_table import read_table
from contract.rows import read_rows, to_arrays
from contract.schema import to_typed
from contract.task import make_ensemble
from stages import approve, export
from stages.card import write_card
from stages.start import StageError
from tests.example import (
    HEATING,
    NUMBERS_ONLY,
    PLAIN,
    RENT,
    ROOT,
    WITH_GAPS,
    make_params,
    make_rows,
    write_params,
)

TOLERANCE = 0.01
FAMILIES = {  # the format that each goes into, as measured on the bundled sample
    "linear": "onnx",
    "ridge": "onnx",
    "lasso": "onnx",
    "decision_tree": "onnx",
    "k_neighbors": "skops",  # float32 distances order the neighbours otherwise
    "svr": "onnx",
    "ada_boost": "onnx",
    "random_forest": "onnx",
    "gradient_boosting": "onnx",
    "hist_gradient_boosting": "skops",  # the converter fails
    "voting": "onnx",
    "stacking": "onnx",
}
DIGESTS = """
import hashlib, json, sys, warnings
warnings.simplefilter("ignore")
from stages.export import to_onnx, to_skops
from tests.stages.test_export import FAMILIES, fitted

digests = {}
for name, format in FAMILIES.items():
    model = fitted(name)
    contents = [to_skops(model)]
    if format == "onnx":
        contents.append(to_onnx(model, model.n_features_in_))
    digests[name] = [hashlib.sha256(content).hexdigest() for content in contents]
sys.stdout.write(json.dumps(digests))
"""


@cache
def sample() -> tuple[Params, np.ndarray, np.ndarray]:
    """Give the shipped params and the bundled sample as arrays."""
    params = load_params(ROOT / "params.yaml")
    data = params.data.model_copy(update={"source": str(ROOT / "data/sample/students.csv")})
    rows = to_typed(read_table(data, params.contract).rows, params.contract)
    return params, *to_arrays(rows, params.contract)


@cache
def fitted(name: str, last: bool = False):
    """Fit a shipped candidate with its preprocessing, at the first or the last of each grid."""
    params, X, y = sample()
    if name in ("voting", "stacking"):
        members = ("ridge", "decision_tree", "svr")
        model = make_ensemble(name, {n: shipped(params, n, last) for n in members})
    else:
        model = shipped(params, name, last)
    return model.fit(X[:300], y[:300])


def shipped(params: Params, name: str, last: bool):
    model = params.models[name]
    pipeline = make_candidate(params.contract, params.preprocessing, model, name, params.seed)
    settings = {f"model__{key}": values[-1 if last else 0] for key, values in model.grid.items()}
    if "model__n_estimators" in settings:
        settings["model__n_estimators"] = 20  # the kinds of parts are the same
    return pipeline.set_params(**settings)


@pytest.fixture(autouse=True)
def _one_thread():
    """Let linear algebra and OpenMP keep to one thread, as in a stage."""
    with threadpool_limits(1):
        yield


def test_every_shipped_family_of_scikit_learn_is_tried():
    models = sample()[0].models

    of_sklearn = {name for name, model in models.items() if "sklearn" in model.class_}
    assert of_sklearn | {"voting", "stacking"} == set(FAMILIES)


@pytest.mark.parametrize("last", [False, True], ids=["first of grid", "last of grid"])
@pytest.mark.parametrize("name", FAMILIES)
def test_skops_gives_every_shipped_family_back_with_identical_predictions(name, last):
    X = sample()[1]

    predict = load_skops(export.to_skops(fitted(name, last)))

    np.testing.assert_array_equal(predict(X.astype(np.float32)), fitted(name, last).predict(X))


@pytest.mark.parametrize("name", FAMILIES)
def test_family_is_stored_as_onnx_where_that_agrees_on_all_rows_and_else_as_skops(name):
    X = sample()[1]
    X32 = X.astype(np.float32)

    model_format, content, comparison = export.convert(fitted(name), X32, TOLERANCE)

    predict = {"onnx": load_onnx, "skops": load_skops}[model_format](content)
    difference = np.abs(predict(X32) - fitted(name).predict(X)).max()
    assert model_format == FAMILIES[name]
    assert difference <= comparison["difference_below"] <= TOLERANCE
    assert comparison["n_rows_compared"] == len(X)
    assert (comparison["why_not_onnx"] is None) == (model_format == "onnx")


def test_reason_for_skops_is_recorded_and_logged_in_a_line(caplog):
    X = sample()[1].astype(np.float32)

    def why(name: str) -> str:
        return export.convert(fitted(name), X, TOLERANCE)[2]["why_not_onnx"]

    assert why("k_neighbors") in {"deviates by up to 1", "deviates by up to 10"}
    assert why("hist_gradient_boosting").startswith("cannot be converted (")
    assert "ONNX cannot hold this model: " in caplog.text
    assert len(caplog.text) < 500


def test_bytes_of_every_family_follow_neither_process_nor_folder_and_in_skops_no_hash_seed(
    tmp_path,
):
    def digests(place: str) -> dict[str, list[str]]:
        folder = tmp_path / place
        folder.mkdir()
        environment = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", DIGESTS],
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(run.stdout)

    with ThreadPoolExecutor() as pool:
        first, again = pool.map(digests, ["here", "there"])

    assert first == again
    fresh = fitted.__wrapped__  # neighbours count in the model how often they were asked
    with_this_hash_seed = {name: sha256(export.to_skops(fresh(name))) for name in FAMILIES}
    assert {name: found[0] for name, found in first.items()} == with_this_hash_seed


def test_dates_addresses_and_random_names_of_skops_are_gone_but_no_number_of_the_model():
    class_and_bytes = LinearRegression()
    class_and_bytes.note = b"bytes get a random name"
    class_and_bytes.number = 140123456789012  # as long as an address
    class_and_bytes.text = '"__id__": 140123456789012, "file": "140123456789012.npy"'

    first, again = export.to_skops(class_and_bytes), export.to_skops(class_and_bytes)

    import skops.io

    loaded = skops.io.loads(first)
    assert first == again
    assert (loaded.note, loaded.number, loaded.text) == (
        class_and_bytes.note,
        class_and_bytes.number,
        class_and_bytes.text,
    )


@pytest.mark.parametrize(
    ("difference", "told"),
    [(0.0, 0.0), (0.001, 0.001), (0.0011, 0.01), (3e-6, 1e-5), (5.6, 10.0), (np.inf, np.inf)],
)
def test_difference_is_told_as_the_next_power_of_ten(difference, told):
    assert export._power_of_ten(difference) == pytest.approx(told)


def test_largest_difference_is_found_in_any_part_and_a_missing_prediction_is_no_agreement(
    monkeypatch,
):
    X = np.arange(40, dtype=np.float32).reshape(10, 4)
    model = LinearRegression().fit(X, X[:, 0])
    monkeypatch.setattr(export, "CHUNK", 3)

    def off_by(row: int, difference: float) -> float:
        def predict(part: np.ndarray) -> np.ndarray:
            return model.predict(part) + np.where(part[:, 0] == 4 * row, difference, 0)

        return export.largest_difference(predict, model, X)

    assert [off_by(row, 0.5) for row in (0, 4, 9)] == pytest.approx([0.5] * 3, abs=1e-5)
    assert np.isnan(off_by(4, np.nan))


class Forgetful(LinearRegression):
    """A model that loses a part of itself when it is stored; ONNX does not know it."""

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"intercept_": 0.0}


def test_model_that_deviates_in_either_format_is_not_exported(monkeypatch):
    X = np.eye(4, dtype=np.float32)
    model = Forgetful().fit(X, [1.0, 2.0, 3.0, 5.0])
    monkeypatch.setenv("TRUSTED_TYPES", f"{__name__}.Forgetful")

    with pytest.raises(StageError, match=r"deviates from the pipeline by 2\.75, expected export\."):
        export.convert(model, X, TOLERANCE)


def test_model_of_a_type_that_nobody_trusts_is_not_exported():
    X = np.eye(4, dtype=np.float32)

    with pytest.raises(ValueError, match=r"types that are not trusted: .*Forgetful"):
        export.convert(Forgetful().fit(X, [1.0, 2.0, 3.0, 5.0]), X, TOLERANCE)


def test_gaps_go_through_the_exported_model_as_through_the_pipeline():
    params = make_params({"contract": WITH_GAPS})
    X, y = to_arrays(make_rows(300, contract=params.contract), params.contract)
    assert np.isnan(X).any(axis=0).all()
    for name in ("linear", "decision_tree", "random_forest"):
        model = shipped(params, name, last=False).fit(X, y)
        model_format, content, _ = export.convert(model, X.astype(np.float32), TOLERANCE)
        assert model_format == "onnx"
        told = load_onnx(content)(X.astype(np.float32))
        np.testing.assert_allclose(told, model.predict(X), atol=TOLERANCE)


def test_approved_model_is_exported_with_all_that_a_server_needs(approved):
    export.main()

    model, params = load_model(FINAL), make_params()
    manifest, evaluation = model.manifest, read_figures(export.EVALUATION)
    assert manifest.format == "onnx"
    assert manifest.contract == params.contract
    assert manifest.clip is True
    assert manifest.interval.model_dump() == read_figures(export.SELECTION)["interval"]
    assert (manifest.candidate, manifest.score) == (evaluation["candidate"], "r2_score")
    assert manifest.metrics == {
        name: evaluation[name]
        for name in (
            "r2_score",
            "root_mean_squared_error",
            "mean_absolute_error",
            "median_absolute_error",
            "max_error",
        )
    }
    assert manifest.test_rows_sha256 == export.TEST_ROWS_SHA256.read_text().strip()
    assert set(manifest.libraries) == set(export.LIBRARIES)
    for name, digest in manifest.files.items():
        assert sha256((FINAL / name).read_bytes()) == digest
    assert {path.name for path in FINAL.iterdir()} == {MANIFEST, *manifest.files}
    X, _ = to_arrays(read_rows(export.VALID_ROWS), params.contract)
    told = model.predict(X.astype(np.float32)).prediction
    np.testing.assert_allclose(told, joblib.load(export.CHOSEN).predict(X), atol=TOLERANCE)


def test_comparison_on_all_rows_is_recorded(approved):
    export.main()

    recorded = read_figures(export.METRICS)
    assert recorded == {
        "format": "onnx",
        "why_not_onnx": None,
        "n_rows_compared": 200,
        "difference_below": recorded["difference_below"],
        "tolerance": 0.01,
    }
    assert 0 < recorded["difference_below"] <= 0.01


def test_no_tolerance_at_all_leads_to_skops_which_is_exact(approved):
    write_params({"export.tolerance": 0.0})

    export.main()

    assert read_figures(export.METRICS)["difference_below"] == 0
    assert read_figures(export.METRICS)["why_not_onnx"].startswith("deviates by up to 0.00")
    assert load_model(FINAL).manifest.format == "skops"


def test_exported_again_the_folder_is_the_same_and_names_neither_host_nor_place(approved):
    def made() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in FINAL.iterdir()}

    export.main()
    manifest = load_model(FINAL).manifest
    first = made()
    export.main()

    assert load_model(FINAL).manifest.version == manifest.version
    assert made() == first
    assert str(approved).encode() not in b"".join(first.values())


def test_refused_model_is_not_exported_and_the_last_one_stays(approved):
    export.main()
    before = (FINAL / MANIFEST).read_bytes()
    write_params({"gate.floor": 0.9999})
    with pytest.raises(StageError):
        approve.main()

    with pytest.raises(StageError, match="does not approve the model"):
        export.main()

    assert (FINAL / MANIFEST).read_bytes() == before


def test_model_that_cannot_be_exported_leaves_the_last_one(approved):
    export.main()
    before = (FINAL / MANIFEST).read_bytes()
    X, y = to_arrays(read_rows(export.VALID_ROWS), make_params().contract)
    joblib.dump(Forgetful().fit(X, y), export.CHOSEN)

    with pytest.raises(ValueError, match="not trusted"):
        export.main()

    assert (FINAL / MANIFEST).read_bytes() == before


def test_card_tells_data_contract_scores_groups_and_limits(approved):
    export.main()

    card, evaluation = (FINAL / CARD).read_text("utf-8"), read_figures(export.EVALUATION)
    confidence, interval = evaluation["confidence"], evaluation["interval"]
    for line in [
        "# Model card: rent",
        "Predicts `rent` (0 to 20000 EUR/month)",
        "from 4 features.",
        f"the candidate `{evaluation['candidate']}`,",
        "stored as onnx, chosen by cross-validation",
        "## Scores on 40 test rows that no choice has seen",
        f"| r2 score | {evaluation['r2_score']:g} |",
        f"| root mean squared error | {evaluation['root_mean_squared_error']:g} EUR/month |",
        "With 95% confidence (bootstrap), r2 score lies between",
        f"{confidence['lower']:g} and {confidence['upper']:g}.",
        f"prediction ± {interval['half_width']:g} EUR/month, made to hold",
        f"90% of new rows; it held {interval['coverage']:.1%} of the test rows.",
        "| `area` | numeric | 8 to 500 m² | no |  |",
        "| `condition` | ordinal | one of poor, fair, good | no | as seen by the agent |",
        "## Limits",
    ]:
        assert line in card
    slices = pd.read_csv(export.SLICES)
    for part in slices.itertuples():
        assert f"| {part.feature} | {part.group} | {part.n_rows} | {part.r2_score:g} |" in card


def test_card_names_a_group_called_none_and_marks_what_was_not_measured(approved):
    text = export.SLICES.read_text("utf-8")
    lines = text.splitlines()
    lines[1] = lines[1].replace("gas", "None", 1)
    columns = lines[0].count(",") + 1
    lines[2] = "heating,NA,1" + "," * (columns - 3)
    export.SLICES.write_text("\n".join(lines) + "\n", "utf-8")

    export.main()

    card = (FINAL / CARD).read_text("utf-8")
    assert "| heating | None | " in card
    assert "| heating | NA | 1 | n/a | n/a | n/a |" in card


def test_card_of_a_contract_without_categories_gaps_and_units_reads_well():
    plain = {"target": {"name": "rent"}, "features": NUMBERS_ONLY["features"]}
    evaluation = {
        "candidate": "ridge",
        "score": "mean_squared_error",
        "n_test_rows": 9,
        "mean_squared_error": 4.0,
        "max_error": 3.0,
        "confidence": {"level": 0.95, "lower": 3.0, "upper": 5.0},
        "interval": {"level": 0.9, "half_width": 2.0, "coverage": 1.0},
    }

    card = write_card(
        Contract.model_validate(plain), evaluation, pd.DataFrame(), {"format": "skops"}
    )

    assert "Predicts `rent` (a number)\n" in card
    assert "The contract has no categorical feature." in card
    assert "| mean squared error | 4 |\n| max error | 3 |" in card
    with_unit = Contract.model_validate(plain | {"target": RENT})
    card = write_card(with_unit, evaluation, pd.DataFrame(), {"format": "skops"})
    assert "| mean squared error | 4 |\n| max error | 3 EUR/month |" in card


def test_category_with_a_bar_does_not_break_the_table_of_the_card(approved):
    features = [
        feature | {"categories": ["gas", "district", "oil|wood"]} if feature == HEATING else feature
        for feature in PLAIN["features"]
    ]
    contract = Contract.model_validate({"target": RENT, "features": features})
    slices = pd.read_csv(export.SLICES)
    slices.loc[0, "group"] = "oil|wood"

    card = write_card(contract, read_figures(export.EVALUATION), slices, {"format": "onnx"})

    tables = [line for line in card.splitlines() if "oil" in line]
    assert [line.replace(r"\|", "").count("|") for line in tables] == [6, 7]
    assert all(r"oil\|wood" in line for line in tables)


def test_verdict_that_was_refused_by_hand_stops_the_export(approved):
    write_figures(export.VERDICT, read_figures(export.VERDICT) | {"verdict": "refused"})

    with pytest.raises(StageError, match=r"verdict\.json does not approve"):
        export.main()
    assert not Path(FINAL).exists()
