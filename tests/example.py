"""A small example of another problem than the shipped one: flats and their rents."""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from contract.features import Contract
from contract.params import Params

ROOT = Path(__file__).parents[1]
AREA = {"name": "area", "kind": "numeric", "range": [8, 500], "unit": "m²"}
ROOMS = {"name": "rooms", "kind": "numeric", "dtype": "int", "range": [1, 12]}
HEATING = {
    "name": "heating",
    "kind": "nominal",
    "categories": ["gas", "district", "electric"],
    "former_names": ["type of heating"],
}
CONDITION = {
    "name": "condition",
    "kind": "ordinal",
    "categories": ["poor", "fair", "good"],
    "description": "as seen by the agent",
}
RENT = {
    "name": "rent",
    "range": [0, 20000],
    "unit": "EUR/month",
    "former_names": ["monthly rent"],
}
PLAIN = {"target": RENT, "features": [AREA, ROOMS, HEATING, CONDITION]}
WITH_GAPS = {
    "target": RENT,
    "features": [feature | {"missing": True} for feature in (AREA, ROOMS, HEATING, CONDITION)],
}
NUMBERS_ONLY = {"target": RENT, "features": [AREA, ROOMS]}
CONTRACT = Contract.model_validate(PLAIN)
SMALL = {
    "contract": PLAIN,
    "data.source": "flats.csv",
    "candidates": ["linear", "ridge", "decision_tree"],
    "models.ridge.grid": {"alpha": [0.1, 1.0]},
    "models.decision_tree.grid": {"max_depth": [3, 6]},
    "tune.n_folds": 3,
    "evaluate.n_resamples": 100,
    "evaluate.n_permutations": 2,
    "gate.floor": 0.5,
}


def raw_params(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Give the shipped params, made small and about flats; changes name keys with dots."""
    return changed(_shipped(), SMALL | (changes or {}))


@cache
def _shipped() -> dict[str, Any]:
    return YAML(typ="safe").load(ROOT / "params.yaml")


def changed(raw: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    raw = deepcopy(raw)
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = raw
        for name in sections:
            section = section[name]
        section[key] = deepcopy(value)
    return raw


def make_params(changes: dict[str, Any] | None = None) -> Params:
    return Params.model_validate_json(json.dumps(raw_params(changes)), strict=True)


def write_params(changes: dict[str, Any] | None = None) -> Params:
    """Write params.yaml into the current folder; give what it holds."""
    YAML(typ="safe").dump(raw_params(changes), Path("params.yaml"))
    return make_params(changes)


def make_rows(n_rows: int, seed: int = 0, contract: Contract = CONTRACT) -> pd.DataFrame:
    """Draw typed rows as `validate` writes them; a tenth is missing where the contract allows."""
    rng = np.random.default_rng(seed)
    area = rng.uniform(20, 200, n_rows).round(1)
    rooms = np.clip(area // 30 + rng.integers(0, 3, n_rows), 1, 12).astype(int)
    heating, condition = rng.integers(0, 3, n_rows), rng.integers(0, 3, n_rows)
    rent = 150 + 9 * area + 20 * rooms - 60 * (heating == 2) + 120 * condition
    rent = (rent + rng.normal(0, 60, n_rows)).round(2)
    columns = {
        "area": area,
        "rooms": rooms,
        "heating": np.array(HEATING["categories"])[heating],
        "condition": np.array(CONDITION["categories"])[condition],
        "rent": rent,
    }
    index = pd.RangeIndex(2, n_rows + 2, name="line")
    rows = pd.DataFrame(columns, index=index)[[column.name for column in contract.columns]]
    for feature in contract.features:
        if feature.missing:
            rows[feature.name] = rows[feature.name].mask(rng.random(n_rows) < 0.1)
    return rows


def as_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn typed rows into cells of text, a gap staying one, as `ingest` writes them."""
    return rows.astype(object).map(str, na_action="ignore").astype("str")
