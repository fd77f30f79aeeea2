"""Prediction logs of flats and their rents, as a server writes them."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from contract.artifact import Predictions
from contract.features import Contract
from contract.predictions.database import Database
from contract.predictions.delivery import deliver_once
from contract.predictions.log import PredictionLog
from contract.predictions.outbox import Outbox
from contract.predictions.settings import DatabaseAddress
from tests.example import CONTRACT

MODEL = "0a1b2c3d4e5f"
GAS = {"area": 72.5, "rooms": 3, "heating": "gas", "condition": "fair"}


def append(
    log: PredictionLog,
    rows: Sequence[dict],
    *,
    model: str = MODEL,
    source: str = "api",
    request_id: str = "r-1",
    latency_ms: float = 1.5,
    first: float = 0.0,
) -> list[str]:
    """Log rows with the predictions first, first + 1, ...; give their ids."""
    y_pred = first + np.arange(len(rows), dtype=np.float64)
    return log.append(
        [json.dumps(row, ensure_ascii=False) for row in rows],
        Predictions(y_pred, y_pred - 10.5, y_pred + 10.5),
        model=model,
        source=source,
        request_id=request_id,
        latency_ms=latency_ms,
    )


def describe(log: PredictionLog, contract: Contract = CONTRACT, model: str = MODEL) -> None:
    log.describe(model, contract.model_dump_json())


def write_log(path: Path, n_rows: int = 3, contract: Contract = CONTRACT) -> list[str]:
    """Make a log with so many rows; give their ids."""
    with closing(PredictionLog(path)) as log:
        describe(log, contract)
        return append(log, [GAS] * n_rows)


def deliver(path: Path, url: str) -> None:
    """Deliver all that a log has to a database."""
    address = DatabaseAddress(url)
    with closing(Outbox(path, address.name)) as outbox, closing(Database(address)) as database:
        database.expect_tables()
        while deliver_once(outbox, database):
            pass
