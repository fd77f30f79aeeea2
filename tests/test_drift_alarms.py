"""At the shipped limits drift raises no false alarms, and misses none of the changes that matter.

`python -m benchmarks --only drift` measures the same on more tables and with more trials.
"""

import pytest

from benchmarks.drift import (
    FEWEST_CAUGHT,
    MOST_FALSE,
    SIZES,
    Table,
    caught,
    changes,
    false_alarms,
    tables,
)
from contract.params import load_params
from tests.example import ROOT

DRIFT = load_params(ROOT / "params.yaml").drift
MADE_HERE = [table for table in tables() if table.draw]
N_TRIALS = 200
FEW_TRIALS = 20
CHANGES = [(table, change) for table in MADE_HERE for change in changes(table)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("table", MADE_HERE, ids=lambda table: table.name)
def test_resamples_of_the_reference_do_not_fail(table: Table, size: int):
    told = false_alarms(table, DRIFT, size, N_TRIALS, fresh=False)

    assert told.count("fail") <= N_TRIALS * MOST_FALSE / 100
    if size > DRIFT.min_rows:
        assert told.count("warn") <= N_TRIALS * MOST_FALSE / 100


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize(
    ("table", "change"),
    CHANGES,
    ids=[f"{change.name}: {change.column}" for _, change in CHANGES],
)
def test_change_is_caught(table, change, size):
    told = caught(table, change, DRIFT, size, FEW_TRIALS)

    assert told.count("nothing") <= FEW_TRIALS * (100 - FEWEST_CAUGHT) / 100
