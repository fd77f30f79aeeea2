"""Export the approved model to models/final/, the one folder that the server reads."""

import io
import logging
import math
import re
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from contract.artifact import (
    CARD,
    FINAL,
    TRAIN_PROFILE,
    content_name,
    load_model,
    load_onnx,
    load_skops,
    load_train_profile,
    make_manifest,
    sha256,
    write_artifact,
)
from contract.encoding import encode
from contract.features import PREDICTION
from contract.figures import read_figures, write_figures
from contract.params import Params, load_params
from contract.profile import Profile
from contract.profiler import axes_of, make_profile
from contract.rows import read_rows
from stages.card import write_card
from stages.libraries import libraries_of
from stages.start import StageError, start

logger = logging.getLogger(__name__)

VALID_ROWS = Path("data/interim/valid.parquet")
TRAIN_ROWS = Path("data/split/train.parquet")
TEST_ROWS_SHA256 = Path("data/split/test_rows.sha256")
CHOSEN = Path("models/chosen.joblib")
SELECTION = Path("metrics/select.json")
EVALUATION = Path("metrics/evaluation.json")
SLICES = Path("metrics/evaluate/slices.csv")
VERDICT = Path("metrics/verdict.json")
METRICS = Path("metrics/export.json")
LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx", "skops")
CHUNK = 100_000  # rows compared at once
# memory addresses, and for bytes random names, in skops' schema.json and in its files' names
SKOPS_IDS = re.compile(r'(?<="__id__": )\d+|(?<="file": ")[\w-]+')
FILE_ID = re.compile(r"^[\w-]+")


def to_onnx(pipeline: BaseEstimator, n_features: int) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    X = FloatTensorType([None, n_features])
    # the name is a random one if none is given
    return convert_sklearn(pipeline, "model", [("X", X)]).SerializeToString()


def to_skops(pipeline: BaseEstimator) -> bytes:
    """Give skops' archive without its dates and memory addresses, which differ each time."""
    import skops.io

    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(pipeline))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    numbers: dict[str, str] = {}

    def renumber(found: re.Match) -> str:
        return numbers.setdefault(found[0], str(len(numbers) + 1))

    schema = SKOPS_IDS.sub(renumber, files.pop("schema.json").decode())
    named = {FILE_ID.sub(renumber, name): content for name, content in files.items()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(named):
            archive.writestr(zipfile.ZipInfo(name), named[name], zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("schema.json"), schema, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def largest_difference(predict: Callable, pipeline: BaseEstimator, X: np.ndarray) -> float:
    """Compare an exported model with its pipeline on X, float32, (n_rows, n_features)."""
    differences = [
        np.abs(predict(part) - pipeline.predict(part.astype(np.float64)).ravel()).max()
        for part in np.array_split(X, math.ceil(len(X) / CHUNK))
    ]
    return float(np.max(differences))  # NaN if any is


def convert(
    pipeline: BaseEstimator, X: np.ndarray, tolerance: float
) -> tuple[str, bytes, dict[str, Any]]:
    """Give the format, the model's bytes and the comparison: ONNX, or skops where it deviates.

    Raises StageError if skops deviates too.
    """
    why_not_onnx = None
    try:
        content = to_onnx(pipeline, X.shape[1])
        predict = load_onnx(content)
        predict(X[:1])  # some fail only then
    except Exception as error:  # noqa: BLE001, whatever a converter raises has the same answer
        logger.warning("ONNX cannot hold this model: %s", shorten(str(error), 200))
        why_not_onnx = f"cannot be converted ({type(error).__name__})"
    else:
        difference = largest_difference(predict, pipeline, X)
        if not difference <= tolerance:  # it may be NaN
            why_not_onnx = f"deviates by up to {_power_of_ten(difference):g}"
    if why_not_onnx:
        content = to_skops(pipeline)
        difference = largest_difference(load_skops(content), pipeline, X)
        if not difference <= tolerance:
            raise StageError(
                f"The exported model deviates from the pipeline by {difference:g}, expected "
                f"export.tolerance {tolerance:g} or less. Nothing was exported."
            )
    comparison = {
        "format": "skops" if why_not_onnx else "onnx",
        "why_not_onnx": why_not_onnx,
        "n_rows_compared": len(X),
        "difference_below": _power_of_ten(difference),
        "tolerance": tolerance,
    }
    return comparison["format"], content, comparison


def profile_rows(rows: pd.DataFrame, pipeline: BaseEstimator, params: Params) -> Profile:
    """Sum up the train rows, and what the model predicts for them, for those who monitor it."""
    contract = params.contract
    axes = axes_of(contract)
    y_pred = pipeline.predict(encode(rows, contract).astype(np.float64)).ravel()
    if params.prediction.clip and contract.target.range:
        y_pred = np.clip(y_pred, *contract.target.range)
    predicted = make_profile({PREDICTION: y_pred}, {PREDICTION: axes[contract.target.name]})
    profile = make_profile(rows, axes)
    return profile.model_copy(update={"columns": profile.columns | predicted.columns})


def _power_of_ten(difference: float) -> float:
    """Round up to 0 or a power of ten, the part of a rounding error that is meaningful."""
    if difference == 0 or not math.isfinite(difference):
        return difference
    return 10.0 ** math.ceil(math.log10(difference))


def main() -> None:
    params = load_params()
    pipeline = joblib.load(CHOSEN)
    X = encode(read_rows(VALID_ROWS), params.contract)
    selection, evaluation = read_figures(SELECTION), read_figures(EVALUATION)
    if read_figures(VERDICT)["verdict"] != "approved":
        raise StageError(f"{VERDICT} does not approve the model. Run `dvc repro`.")

    model_format, content, comparison = convert(pipeline, X, params.export.tolerance)
    slices = pd.read_csv(SLICES, keep_default_na=False, na_values=[""])  # a group may be "None"
    card = write_card(params.contract, evaluation, slices, comparison).encode()
    profile = profile_rows(read_rows(TRAIN_ROWS), pipeline, params).to_json().encode()
    model = content_name("model", f".{model_format}", content)
    contents = {model: content, TRAIN_PROFILE: profile, CARD: card}
    confidence = evaluation["confidence"]
    manifest = make_manifest(
        {
            "format": model_format,
            "model": model,
            "files": {name: sha256(each) for name, each in contents.items()},
            "contract": params.contract,
            "clip": params.prediction.clip,
            "interval": selection["interval"],
            "candidate": evaluation["candidate"],
            "score": evaluation["score"],
            "metrics": {key: value for key, value in evaluation.items() if type(value) is float},
            "confidence": None if None in confidence.values() else confidence,
            "test_rows_sha256": TEST_ROWS_SHA256.read_text("utf-8").strip(),
            "libraries": {name: version(name) for name in LIBRARIES} | libraries_of(pipeline),
        }
    )

    write_artifact(FINAL, manifest, contents)
    load_model(FINAL)
    load_train_profile(FINAL)
    write_figures(METRICS, comparison)
    logger.info("%s %s is in %s", manifest.candidate, manifest.version, FINAL)


if __name__ == "__main__":
    start(main)
