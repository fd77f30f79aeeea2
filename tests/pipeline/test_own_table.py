import json

import numpy as np
import pandas as pd

CONTRACT = {
    "target": {"name": "rent", "range": [0, 20000], "unit": "EUR/month"},
    "features": [
        {"name": "area", "kind": "numeric", "range": [8, 500], "unit": "m²", "missing": True},
        {"name": "rooms", "kind": "numeric", "dtype": "int", "range": [1, 20]},
        {
            "name": "heating",
            "kind": "nominal",
            "categories": ["gas", "district", "electric"],
            "missing": True,
        },
        {
            "name": "condition",
            "kind": "ordinal",
            "categories": ["poor", "fair", "good"],
            "former_names": ["Zustand"],
        },
    ],
}


def make_flats(n_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    flats = pd.DataFrame(
        {
            "area": rng.uniform(20, 200, n_rows).round(1),
            "rooms": rng.integers(1, 6, n_rows),
            "heating": rng.choice(["gas", "district", "electric"], n_rows),
            "Zustand": rng.choice(["poor", "fair", "good"], n_rows),
        }
    )
    quality = flats["Zustand"].map({"poor": 0, "fair": 100, "good": 200})
    flats["rent"] = (flats["area"] * 9.5 + quality + rng.normal(0, 40, n_rows)).round(2)
    flats.loc[rng.choice(n_rows, 20, replace=False), "area"] = np.nan
    flats.loc[rng.choice(n_rows, 20, replace=False), "heating"] = np.nan
    return flats


def test_another_table_needs_another_contract_and_no_other_change(untrained):
    """European numbers, permitted gaps, a former name, a table versioned by `dvc add`."""
    table = untrained.root / "data/raw/flats.csv"
    table.parent.mkdir()
    make_flats(300).to_csv(table, index=False, sep=";", decimal=",")
    untrained.dvc("add", "data/raw/flats.csv")
    untrained.set_params(
        {
            "contract": CONTRACT,
            "data.source": "data/raw/flats.csv",
            "score": "rmse",
            "gate.floor": 200,
            "candidates": ["linear", "hist_gradient_boosting"],
            "models.hist_gradient_boosting.grid": {"max_iter": [20]},
        }
    )

    untrained.dvc("repro")
    untrained.commit()

    assert "data/raw/flats.csv.dvc" in untrained.git("ls-files")
    assert "data/raw/flats.csv" not in untrained.git("ls-files").splitlines()
    assert json.loads(untrained.read("metrics/validation.json"))["n_gaps"]["area"] == 20
    evaluation = json.loads(untrained.read("metrics/evaluation.json"))
    assert evaluation["score"] == "root_mean_squared_error"
    assert evaluation["r2_score"] > 0.8
    plots = untrained.dvc("plots", "show").stdout
    assert "failed" not in plots.lower()
    card = untrained.read("models/final/README.md")
    assert "`area` | numeric | 8 to 500 m² | yes" in card
