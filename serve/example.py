"""Rows that fit the contract, for people who want to see what a file or a request looks like."""

import csv
import io
import math
from typing import Any

from contract.features import Contract, Feature

N_ROWS = 3


def example_row(contract: Contract, place: int = 1) -> dict[str, Any]:
    """Give a row; `place` walks through each feature's values, from 0."""
    return {feature.name: _value(feature, place) for feature in contract.features}


def example_csv(contract: Contract) -> str:
    """Give a small table as CSV, to try the batch page with."""
    text = io.StringIO()
    writer = csv.DictWriter(text, contract.names(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(example_row(contract, place) for place in range(N_ROWS))
    return text.getvalue()


def _value(feature: Feature, place: int) -> Any:
    if feature.range is None:
        return feature.categories[place % len(feature.categories)]
    low, high = feature.range
    value = low + (high - low) * (place + 1) / (N_ROWS + 1)
    if feature.dtype == "int":
        return min(max(round(value), math.ceil(low)), math.floor(high))
    return min(max(float(f"{value:.3g}"), low), high)
