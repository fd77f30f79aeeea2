"""Small models in folders of their own, as `export` leaves them."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression

from contract.artifact import CARD, content_name, make_manifest, sha256, write_artifact
from contract.encoding import encode
from contract.features import Contract
from stages.export import to_onnx, to_skops
from tests.example import CONTRACT, make_rows

CARD_TEXT = b"# A model of rents\n"


def write_model(
    folder: Path,
    seed: int = 0,
    contract: Contract = CONTRACT,
    estimator: BaseEstimator | None = None,
    **changes: Any,
) -> str:
    """Fit a model on rows drawn by the seed and export it; give its version.

    An `estimator` other than the linear one is stored as skops.
    """
    rows = make_rows(200, seed, contract)
    X, y = encode(rows, contract), rows[contract.target.name].to_numpy()
    X = np.nan_to_num(X)
    fitted = (estimator or LinearRegression()).fit(X, y)
    suffix, content = (
        (".skops", to_skops(fitted)) if estimator else (".onnx", to_onnx(fitted, X.shape[1]))
    )
    model = content_name("model", suffix, content)
    manifest = make_manifest(
        {
            "format": suffix[1:],
            "model": model,
            "files": {model: sha256(content), CARD: sha256(CARD_TEXT)},
            "contract": contract,
            "clip": True,
            "interval": {"level": 0.9, "half_width": 100.0},
            "candidate": f"seed {seed}",
            "score": "r2_score",
            "metrics": {"r2_score": 0.9, "mean_absolute_error": 48.0},
            "confidence": {"level": 0.95, "lower": 0.85, "upper": 0.93},
            "test_rows_sha256": "0" * 64,
            "libraries": {"numpy": np.__version__},
        }
        | changes
    )
    write_artifact(folder, manifest, {model: content, CARD: CARD_TEXT})
    return manifest.version
