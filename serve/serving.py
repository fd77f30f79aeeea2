"""The model in service, and how a new one takes its place while requests go on."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.artifact import MANIFEST, ArtifactError, Model, load_model, read_manifest
from contract.encoding import row_encoder
from contract.features import Contract, Feature
from contract.predictions.privacy import Privacy
from serve.check import Check
from serve.metrics import Metrics

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60.0  # until an artifact that was refused is looked at again


@dataclass(frozen=True)
class InService:
    """A loaded model with what follows from its contract; a request takes one and keeps it."""

    model: Model
    check: Check
    encode_row: Callable[[Mapping[str, Any]], np.ndarray]
    privacy: Privacy  # what of its features is logged
    contract_json: str

    @property
    def version(self) -> str:
        return self.model.manifest.version

    @property
    def contract(self) -> Contract:
        return self.model.manifest.contract


def store_all(contract: Contract) -> Privacy:
    return Privacy("on", "", contract)


def load(folder: Path, privacy_of: Callable[[Contract], Privacy] = store_all) -> InService:
    """Load what lies in the folder.

    Raises ArtifactError if it is not whole, PrivacyError if its features cannot be hidden.
    """
    model = load_model(folder)
    contract = model.manifest.contract
    privacy, as_json = privacy_of(contract), contract.model_dump_json()
    return InService(model, Check(contract), row_encoder(contract), privacy, as_json)


def run_canary(found: InService) -> None:
    """Predict one row of the contract; raises ArtifactError unless a number comes back."""
    row = {feature.name: _any_value(feature) for feature in found.contract.features}
    told = found.model.predict(found.encode_row(row))
    if told.prediction.shape != (1,) or not np.isfinite(told.prediction).all():
        raise ArtifactError(
            f"Model {found.version} predicts {told.prediction} for {row}, expected one number."
        )


def _any_value(feature: Feature) -> Any:
    return feature.categories[0] if feature.range is None else feature.range[0]


class Serving:
    """Holds the model in service and follows the folder; a bad artifact there changes nothing."""

    def __init__(
        self,
        folder: Path,
        metrics: Metrics,
        privacy_of: Callable[[Contract], Privacy] = store_all,
    ):
        """Load the model, or raise ArtifactError.

        No prediction yet: this runs before gunicorn forks, and the threads that scikit-learn
        starts for its first prediction would be missing in the child, which then hangs.
        """
        self.current = load(folder, privacy_of)
        self.problem = ""  # why the artifact on disk is not in service
        self._folder = folder
        self._metrics = metrics
        self._privacy_of = privacy_of
        self._seen: tuple[int, ...] | None = None
        self._is_proven = False
        self._n_refused = 0
        self._look_again_s = 0.0

    def follow(self, every_s: float) -> None:
        """Look at the folder now and from now on; called in each worker after the fork."""
        self.look()
        threading.Thread(target=self._watch, args=(every_s,), name="model", daemon=True).start()

    def prove(self) -> None:
        """Predict with the model in service, which takes longest the first time."""
        run_canary(self.current)
        self._is_proven = True

    def _watch(self, every_s: float) -> None:
        while True:
            time.sleep(every_s)
            self.look()

    def look(self) -> None:
        """Take the model on disk into service if it is a new one, whole, and predicts."""
        seen = _signature(self._folder / MANIFEST)
        if seen is None or (seen == self._seen and time.monotonic() < self._look_again_s):
            return  # a folder without a manifest is being written
        if seen != self._seen:
            self._n_refused = 0
        self._seen = seen
        try:
            if read_manifest(self._folder).version != self.current.version:
                found = load(self._folder, self._privacy_of)
                run_canary(found)
                logger.info("model %s takes the place of %s", found.version, self.current.version)
                self.current, self._is_proven = found, True
            elif not self._is_proven:
                self.prove()
        except Exception as error:  # noqa: BLE001, whatever is wrong with it, the old model stays
            self._refuse(error)
        else:
            self.problem, self._look_again_s = "", float("inf")
        self._metrics.show_model(self.current.version, is_refused=bool(self.problem))

    def _refuse(self, error: Exception) -> None:
        pause_s = min(2.0 ** min(self._n_refused, 10), LONGEST_PAUSE_S)
        self._n_refused += 1
        self._look_again_s = time.monotonic() + pause_s
        self.problem = f"{type(error).__name__}: {error}"
        logger.error("model %s stays: %s", self.current.version, self.problem)


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:  # a disk that fails, say; loading will tell
        return (error.errno,)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
