"""What a table leaves in the prediction log: each row's features as a JSON object."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.features import Contract, Feature
from contract.predictions.privacy import Privacy


def as_json(values: np.ndarray, contract: Contract, privacy: Privacy) -> pa.StringArray:
    """Write checked values, shape (n_rows, n_features), as far as they may be stored.

    A gap is null.
    """
    if privacy.stores_none:
        return pa.array(["{}"] * len(values), pa.string())
    parts = []
    for feature, column in zip(contract.features, values.T, strict=True):
        key = f"{', ' if parts else '{'}{json.dumps(feature.name, ensure_ascii=False)}: "
        if feature.categories:
            parts.append(_categories(key, column, feature, privacy))
        elif feature.name in privacy.hashed:
            parts += [key, _hashed_numbers(column, feature, privacy)]
        else:
            parts += [key, _numbers(column, feature)]
    return pc.binary_join_element_wise(*parts, "}", "")


def _categories(key: str, column: np.ndarray, feature: Feature, privacy: Privacy) -> pa.StringArray:
    told = feature.categories
    if feature.name in privacy.hashed:
        told = map(privacy.hasher(feature.name), told)
    texts = [json.dumps(each, ensure_ascii=False) for each in told]
    pairs = pa.array([key + text for text in [*texts, "null"]])
    return pairs.take(np.nan_to_num(column, nan=len(texts)).astype(np.int32))


def _hashed_numbers(column: np.ndarray, feature: Feature, privacy: Privacy) -> pa.StringArray:
    distinct, places = np.unique(column, return_inverse=True)
    hashed = privacy.hasher(feature.name)
    texts = [json.dumps(hashed(None if np.isnan(each) else each)) for each in distinct.tolist()]
    return pa.array(texts).take(pa.array(places))


def _numbers(column: np.ndarray, feature: Feature) -> pa.StringArray:
    is_gap = np.isnan(column)
    numbers = pa.array(np.where(is_gap, 0.0, column))
    if feature.dtype == "int":
        numbers = numbers.cast(pa.int64())  # 72 rather than 72.0
    texts = numbers.cast(pa.string())
    return pc.if_else(pa.array(is_gap), "null", texts) if is_gap.any() else texts
