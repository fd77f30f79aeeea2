"""The exported model: one folder, written so that it is always whole, and read with suspicion.

`model.json` names every other file with its SHA-256 and is renamed into place last. The model's
own file is named by its content, so that a writer never touches the file that an older
`model.json` still points to: whoever reads at any moment sees the old version or the new one.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from contract.errors import ContractError
from contract.features import Contract
from contract.profile import Profile, parse_profile

FINAL = Path("models/final")
MANIFEST = "model.json"
CARD = "README.md"
TRAIN_PROFILE = "reference.json"
FIXED_NAMES = (TRAIN_PROFILE, CARD)  # whose content changes under them; the others are its hash
N_READS = 10  # a folder that is replaced while we read it is read again ...
WAIT_S = 0.02  # ... after a moment

# What a skops file may hold beside numbers, text and scikit-learn's public estimators, which skops
# itself trusts; anything else is refused, as it could run code when loaded. These are the compiled
# parts of fitted trees and neighbours: plain tables of numbers, and no way to name a function.
# A forged table could crash the process (scikit-learn follows its indices unchecked), hence the
# hash of the file, which is compared before.
TRUSTED_TYPES = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",  # an ensemble's members by name
)

Predict = Callable[[np.ndarray], np.ndarray]


class ArtifactError(ContractError):
    """The folder holds no whole model, or one that was changed after it was written."""


class Interval(BaseModel, frozen=True, extra="forbid"):
    """A prediction interval of one width: prediction +- half_width holds `level` of new rows."""

    level: float
    half_width: float


class Confidence(BaseModel, frozen=True, extra="forbid"):
    """Between which ends the main score lies with this probability, by resampled test rows."""

    level: float
    lower: float
    upper: float


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """model.json: all that a server needs to know of the model."""

    version: str  # hash of the content of everything below
    format: Literal["onnx", "skops"]
    model: str  # the file that holds the model
    files: dict[str, str]  # every other file of the folder, with its SHA-256
    contract: Contract
    clip: bool  # predictions and intervals, to the target's range
    interval: Interval
    candidate: str
    score: str  # the main metric, a key of metrics
    metrics: dict[str, Any]  # as measured on the test rows
    confidence: Confidence | None = None  # of the main score, where it could be measured
    test_rows_sha256: str  # the rows that the metrics were taken on
    libraries: dict[str, str]


@dataclass(frozen=True)
class Predictions:
    """Predictions and both ends of their intervals, each float64 of shape (n_rows,)."""

    prediction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class Model:
    """A model in service: what it says of itself, and its raw function."""

    manifest: Manifest
    raw_predict: Predict  # float32 X of shape (n_rows, n_features) to shape (n_rows,)

    def predict(self, X: np.ndarray) -> Predictions:
        """Predict rows that `encode` made, with their intervals."""
        manifest = self.manifest
        bounds = manifest.contract.target.range if manifest.clip else None
        return with_interval(self.raw_predict(X), manifest.interval.half_width, bounds)


def with_interval(
    y_pred: np.ndarray, half_width: float, bounds: tuple[float, float] | None
) -> Predictions:
    """Put an interval round each prediction, all of it inside the bounds where there are any."""
    y_pred = np.asarray(y_pred, dtype=np.float64).ravel()
    ends = np.array([y_pred, y_pred - half_width, y_pred + half_width])
    if bounds is not None:
        ends = np.minimum(np.maximum(ends, bounds[0]), bounds[1])  # np.clip takes longer for a row
    return Predictions(*ends)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def content_name(stem: str, suffix: str, content: bytes) -> str:
    return f"{stem}-{sha256(content)[:12]}{suffix}"


def make_manifest(fields: Mapping[str, Any]) -> Manifest:
    """Complete the fields with the version, which follows from all of them."""
    plain = Manifest(version="", **fields).model_dump(mode="json")
    return Manifest(version=_version(plain), **fields)


def write_artifact(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Write the files that the manifest names, then the manifest; last, clear away old files.

    Killed at any moment, the folder still holds the old version whole, or the new one. Files with
    fixed names follow the manifest, as no prediction depends on them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    everything = {**contents, MANIFEST: _text(manifest.model_dump(mode="json"))}
    in_order = [
        *(name for name in contents if name not in FIXED_NAMES),
        MANIFEST,
        *(name for name in contents if name in FIXED_NAMES),
    ]
    parts = {name: folder / f".{name}.part" for name in in_order}
    try:
        for name, part in parts.items():
            _write_to_disk(part, everything[name])
    except OSError:  # a full disk
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise
    for name, part in parts.items():
        part.replace(folder / name)
    for path in folder.iterdir():
        if path.name not in {MANIFEST, *contents}:
            path.unlink()


def read_manifest(folder: Path = FINAL) -> Manifest:
    """Read model.json; raises ArtifactError if there is none or it is damaged."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        plain = json.loads(content)
        manifest = Manifest.model_validate(plain)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist. Run `make repro` to make a model.") from error
    except ValueError as error:  # no JSON, or not the fields of a manifest
        raise ArtifactError(f"{path} is damaged: {error}. Export the model again.") from error
    # of the text as it stands, so that a later release may know more fields
    if _text(plain) != content or _version(plain) != manifest.version:
        raise ArtifactError(
            f"{path} does not match its version {manifest.version}; it was edited. "
            "Export the model again: make repro."
        )
    return manifest


def load_model(folder: Path = FINAL) -> Model:
    """Load the model from bytes whose SHA-256 has been compared with model.json.

    Raises ArtifactError if the folder is incomplete, was tampered with, or needs types that are
    not trusted. A folder that is being replaced meanwhile is read again, a few times.
    """
    manifest, content = _read_together(folder, lambda manifest: manifest.model)
    return Model(manifest, _LOADERS[manifest.format](content))


def load_train_profile(folder: Path = FINAL) -> tuple[Manifest, Profile]:
    """Load the profile of the rows that the model was trained on, compared likewise."""
    if TRAIN_PROFILE not in read_manifest(folder).files:
        raise ArtifactError(
            f"{folder} was exported by an older release, without {TRAIN_PROFILE}, the profile of "
            "the rows that it was trained on. Export the model again: make repro."
        )
    manifest, content = _read_together(folder, lambda manifest: TRAIN_PROFILE)
    mend = "Export the model again: make repro."
    return manifest, parse_profile(content, str(folder / TRAIN_PROFILE), mend)


def _read_together(folder: Path, name_in: Callable[[Manifest], str]) -> tuple[Manifest, bytes]:
    """Read the manifest and one of its files, of the same version even while they change."""
    for attempts_left in reversed(range(N_READS)):
        manifest = read_manifest(folder)
        try:
            return manifest, _read_verified(folder, manifest, name_in(manifest))
        except ArtifactError:
            if attempts_left == 0:
                raise
            time.sleep(WAIT_S)
    raise AssertionError("the loop returns or raises")


def _read_verified(folder: Path, manifest: Manifest, name: str) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing, {MANIFEST} names it.") from error
    if sha256(content) != manifest.files.get(name):
        raise ArtifactError(
            f"{path} has SHA-256 {sha256(content)[:12]}..., {MANIFEST} expects "
            f"{manifest.files.get(name, 'none')[:12]}.... Export the model again."
        )
    return content


def load_onnx(content: bytes) -> Predict:
    # Its builds report to Microsoft, from a thread that hangs or aborts a forked child at its end.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # here, so that reading a manifest does not need it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a request is too small to share between threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda X: session.run(None, {name: X})[0].ravel()


def load_skops(content: bytes) -> Predict:
    """Load a scikit-learn pipeline; raises ArtifactError if it holds types we do not trust."""
    try:
        import skops.io
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"The model is stored as skops, and {error.name} is not installed. "
            "Run: pip install -r serve/requirements-skops.txt"
        ) from error

    trusted = [*TRUSTED_TYPES, *os.environ.get("TRUSTED_TYPES", "").split()]
    needed = set(skops.io.get_untrusted_types(data=content)) - set(trusted)
    if needed:
        raise ArtifactError(
            f"The model holds types that are not trusted: {', '.join(sorted(needed))}. "
            "If you know them to be harmless, list them in TRUSTED_TYPES, parted by spaces."
        )
    pipeline = skops.io.loads(content, trusted=trusted)
    return lambda X: pipeline.predict(X.astype(np.float64)).ravel()


_LOADERS: dict[str, Callable[[bytes], Predict]] = {"onnx": load_onnx, "skops": load_skops}


def _text(plain: dict[str, Any]) -> bytes:
    return (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()


def _version(plain: dict[str, Any]) -> str:
    """Hash a manifest in plain types, whatever version it names."""
    return sha256(json.dumps(plain | {"version": ""}, sort_keys=True).encode())[:12]


def _write_to_disk(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
