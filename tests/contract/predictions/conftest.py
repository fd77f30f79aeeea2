"""A prediction log in a folder of its own."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.predictions.log import PredictionLog


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "predictions.db"


@pytest.fixture
def log(path) -> Iterator[PredictionLog]:
    with closing(PredictionLog(path)) as log:
        yield log
