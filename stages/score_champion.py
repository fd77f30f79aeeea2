"""Score the model in service on the rows that the new one is scored on."""

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from contract.artifact import Model, load_model
from contract.champion import Champion
from contract.encoding import encode
from contract.rows import rows_sha256
from contract.task import Score

logger = logging.getLogger(__name__)


def score_champion(champion: Champion | None, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
    """Give {"compared", and its score}: from its record where that was taken on the same rows.

    On other rows its artifact is taken from DVC's cache and scored anew; if that is not to be
    had, or the score is not on record, "compared" says so and there is no score.
    """
    if champion is None:
        return {"compared": "there is no champion"}
    if champion.test_rows_sha256 == rows_sha256(rows) and score.name in champion.metrics:
        return {"compared": "recorded", score.name: champion.metrics[score.name]}
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = _from_cache(champion.artifact_md5, Path(folder))
        return {"compared": "scored on these rows", score.name: _score(model, rows, score)}
    except (ValueError, OSError, KeyError, subprocess.CalledProcessError) as error:
        logger.warning("the champion %s cannot be scored: %s", champion.version, error)
        return {"compared": "not compared"}


def _score(model: Model, rows: pd.DataFrame, score: Score) -> float:
    """Score by the champion's own contract; KeyError if these rows lack one of its columns."""
    contract = model.manifest.contract
    predicted = model.predict(encode(rows, contract))
    return score.of(rows[contract.target.name].to_numpy(float), predicted.prediction)


def _from_cache(md5: str, folder: Path) -> Model:
    """Load the folder that DVC's cache keeps under `md5`, a list of files with their hashes."""
    dvc_says = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"], check=True, capture_output=True, text=True
    )
    objects = Path(dvc_says.stdout.strip()) / "files" / "md5"
    for entry in json.loads((objects / md5[:2] / md5[2:]).read_text("utf-8")):
        content = (objects / entry["md5"][:2] / entry["md5"][2:]).read_bytes()
        (folder / entry["relpath"]).write_bytes(content)
    return load_model(folder)
