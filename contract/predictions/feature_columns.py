"""Features of logged rows as typed columns, whatever contract each of the rows followed."""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain, count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from pydantic_core import from_json, to_json

from contract.features import Contract, Feature

FEATURES = "features"  # the column that the typed ones take the place of
MIN_BLOCK_BYTES = 2**20
LARGEST_INT = 2**63 - 1


def feature_types(contracts: Iterable[Contract]) -> dict[str, pa.DataType]:
    """Give the type of each feature that any of the contracts has, given oldest first.

    The newest contract's features come first. A feature that was whole once and not always is
    float64, one that changed between number and text is text, so that no value is lost.
    """
    types: dict[str, pa.DataType] = {}
    for contract in reversed([*contracts]):
        for feature in contract.features:
            own = _type(feature)
            types[feature.name] = _common(types.get(feature.name, own), own)
    return types


def _type(feature: Feature) -> pa.DataType:
    if feature.kind != "numeric":
        return pa.string()
    return pa.int64() if feature.dtype == "int" else pa.float64()


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    return pa.string() if pa.string() in (one, other) else pa.float64()


def with_feature_columns(batch: pa.RecordBatch, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Put one column a feature in the place of the JSON objects.

    Null is where a row has no such feature, or a value of another type, such as a hash; a text
    column holds numbers as JSON writes them. A feature named like another column of the batch
    becomes feature_...
    """
    base = [name for name in batch.schema.names if name != FEATURES]
    names = [*base, *column_names(types, base).values()]
    columns = [*(batch.column(name) for name in base), *_parse(batch.column(FEATURES), types)]
    return pa.RecordBatch.from_arrays(columns, names)


def column_names(features: Iterable[str], base: Collection[str]) -> dict[str, str]:
    """Name the column of each feature as the typed view in PostgreSQL does."""
    names, taken = {}, {*base}
    for feature in features:
        wanted = f"feature_{feature}" if feature in base else feature
        ends = chain([""], (f"_{n}" for n in count(2)))
        names[feature] = next(wanted + end for end in ends if wanted + end not in taken)
        taken.add(names[feature])
    return names


def _parse(texts: pa.StringArray, types: Mapping[str, pa.DataType]) -> list[pa.Array]:
    """Give the columns of rows that each are a JSON object, shape (n_rows,) each."""
    if not types or not len(texts):
        return [pa.array([], kind) for kind in types.values()]
    try:
        found = _parse_at_once(texts, types)
    except pa.ArrowInvalid:  # a value is of another type
        found = None
    if found is None or len(found) != len(texts):
        return _parse_one_by_one(texts, types)
    return [column.combine_chunks() for column in found.columns]


def _parse_at_once(texts: pa.StringArray, types: Mapping[str, pa.DataType]) -> pa.Table | None:
    """Parse quickly, if all values have the expected types; raises pa.ArrowInvalid otherwise."""
    if not pc.all(pc.starts_with(texts, "{")).as_py():
        return None
    lines = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "\n")[0].as_buffer()
    return pyarrow.json.read_json(
        pa.BufferReader(lines),
        read_options=pyarrow.json.ReadOptions(block_size=max(lines.size, MIN_BLOCK_BYTES)),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore"
        ),
    )


def _parse_one_by_one(texts: pa.StringArray, types: Mapping[str, pa.DataType]) -> list[pa.Array]:
    rows = [parse_features(text) for text in texts.to_pylist()]
    return [
        pa.array([_AS_TYPE[kind](row.get(name)) for row in rows], kind)
        for name, kind in types.items()
    ]


def parse_features(text: str) -> dict[str, Any]:
    """Read one row's features; none of what is no JSON object."""
    try:
        parsed = from_json(text, cache_strings="all")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_float(value: Any) -> float | None:
    if not _is_number(value):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _as_int(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return value if is_int and -LARGEST_INT <= value <= LARGEST_INT else None


def _as_text(value: Any) -> str | None:
    if _is_number(value):
        return to_json(value).decode()
    return value if isinstance(value, str) else None


_AS_TYPE: dict[pa.DataType, Callable[[Any], Any]] = {
    pa.float64(): _as_float,
    pa.int64(): _as_int,
    pa.string(): _as_text,
}
