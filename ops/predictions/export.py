"""Write predictions with their truths as csv, parquet or json lines."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from pydantic_core import to_json

from contract.predictions.feature_columns import FEATURES, feature_types, with_feature_columns
from contract.predictions.read import SCHEMA, TIME, Reader, Window, open_log_for_reading
from contract.predictions.settings import LogSettings
from ops.predictions.command import CommandError, add_local, add_since, note, parse_time

SUFFIX_TO_FORMAT = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
# A spreadsheet takes a cell that begins so for a formula, and runs it; the ids of requests are
# a client's own words. Source: OWASP, "CSV Injection"; the apostrophe is its advice, too.
FORMULA = r"\A([=+\-@\t\r\n])"
VERSIONS = """SELECT p.model, count(*), sum(CASE WHEN {is_hashed} THEN 1 ELSE 0 END)
    FROM predictions p WHERE {in_window} GROUP BY p.model"""
Types = Mapping[str, pa.DataType]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_since(parser)
    parser.add_argument("--until", metavar="TIME", type=parse_time, help="the same; not included")
    parser.add_argument("--format", choices=["csv", "parquet", "jsonl"], help="else by the ending")
    parser.add_argument("--output", metavar="FILE", type=Path, help="else csv or jsonl to stdout")
    add_local(parser)


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    table_format = _format(options)
    if options.since and options.until and options.since >= options.until:
        raise CommandError("--until is not after --since: no time is left between them.")
    window = Window(options.since, options.until)
    with closing(open_log_for_reading(settings, options.local)) as reader:
        types = {} if table_format == "jsonl" else _types(reader, window)
        with _file(options.output) as sink:
            n_rows = WRITERS[table_format](sink, reader.batches(window), types)
    if n_rows:
        note(f"{n_rows:,} predictions of {reader.name} are in {options.output or 'stdout'}.")
    else:
        note(f"{reader.name} holds no predictions to export.")


def _format(options: argparse.Namespace) -> str:
    output = options.output
    if output is None:
        if options.format == "parquet":
            raise CommandError("--format parquet needs --output FILE: a terminal cannot show it.")
        return options.format or "csv"
    if output.is_dir():
        raise CommandError(f"--output is {output}, a folder, expected the name of a file in one.")
    if not output.parent.is_dir():
        raise CommandError(
            f"--output is {output}, and there is no folder {output.parent}: make it."
        )
    table_format = options.format or SUFFIX_TO_FORMAT.get(output.suffix.lower())
    if table_format is None:
        raise CommandError(
            f"--output is {output}, which ends in {output.suffix or 'nothing'!r}, expected "
            f"{', '.join(SUFFIX_TO_FORMAT)}. Rename it, or add --format."
        )
    return table_format


def _types(reader: Reader, window: Window) -> dict[str, pa.DataType]:
    """Give the features of all contracts that rows of the window follow."""
    contracts, versions = reader.contracts(), reader.ask(VERSIONS, window)
    for version, n_rows, _ in versions:
        if version not in contracts:
            note(
                f"The log does not know the contract of model {version}, so the features of its "
                f"{n_rows:,} rows may lack a column. With --format jsonl they are all there."
            )
    if n_hashed := sum(n for _, _, n in versions):
        note(
            f"Features of {n_hashed:,} rows are hashed; columns of numbers hold nothing there. "
            "With --format jsonl the hashes are there."
        )
    found = {version for version, _, _ in versions} or contracts
    return feature_types(each for version, each in contracts.items() if version in found)


@contextmanager
def _file(path: Path | None) -> Iterator[BinaryIO]:
    """Open stdout, or a file that appears whole or not at all, and that only its owner may read."""
    if path is None:
        yield sys.stdout.buffer
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.touch(mode=0o600)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error}. Name another, or free space."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def write_parquet(sink: BinaryIO, batches: Iterable[pa.RecordBatch], types: Types) -> int:
    n_rows, no_rows = 0, pa.RecordBatch.from_pylist([], SCHEMA)
    with pyarrow.parquet.ParquetWriter(sink, with_feature_columns(no_rows, types).schema) as writer:
        for batch in batches:
            writer.write_batch(with_feature_columns(batch, types))
            n_rows += batch.num_rows
    return n_rows


def write_csv(sink: BinaryIO, batches: Iterable[pa.RecordBatch], types: Types) -> int:
    n_rows, no_rows = 0, pa.RecordBatch.from_pylist([], SCHEMA)
    empty = _for_spreadsheets(with_feature_columns(no_rows, types))
    with pyarrow.csv.CSVWriter(sink, empty.schema) as writer:
        for batch in batches:
            writer.write_batch(_for_spreadsheets(with_feature_columns(batch, types)))
            n_rows += batch.num_rows
    return n_rows


def write_jsonl(sink: BinaryIO, batches: Iterable[pa.RecordBatch], types: Types) -> int:
    """Write one object a line, the features as they were logged, whatever the contracts."""
    n_rows = 0
    for batch in batches:
        times = batch.schema.get_field_index("time")
        batch = batch.set_column(times, "time", _iso(batch.column("time")))
        sink.writelines(map(_json_line, batch.to_pylist()))
        n_rows += batch.num_rows
    return n_rows


def _json_line(row: dict[str, Any]) -> bytes:
    features = row.pop(FEATURES).encode()
    return b'%b,"%b":%b}\n' % (to_json(row)[:-1], FEATURES.encode(), features)


def _for_spreadsheets(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Give times as text, and no text that a spreadsheet would run."""
    columns = [
        _iso(column) if column.type == TIME else _without_formulas(column)
        for column in batch.columns
    ]
    names = _without_formulas(pa.array(batch.schema.names)).to_pylist()
    return pa.RecordBatch.from_arrays(columns, names)


def _without_formulas(column: pa.Array) -> pa.Array:
    if column.type != pa.string():
        return column
    return pc.replace_substring_regex(column, FORMULA, r"'\1")


def _iso(times: pa.TimestampArray) -> pa.StringArray:
    plain = times.cast(pa.int64()).cast(pa.timestamp("ms"))  # which needs no table of time zones
    return pc.strftime(plain, "%Y-%m-%dT%H:%M:%SZ")


WRITERS = {"parquet": write_parquet, "csv": write_csv, "jsonl": write_jsonl}
