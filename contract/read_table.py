"""Read a table of any supported format as text, whatever its spelling of columns and numbers."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import ContractError
from contract.features import Contract
from contract.params import Data

SUFFIX_TO_FORMAT = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
SEPARATORS = ",;\t|"
GZIP = b"\x1f\x8b"
BOM_TO_ENCODING = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
COMMA_NUMBER = r"[+-]?\d+,\d+"
POINT_NUMBER = r"[+-]?\d*\.\d+"
COMMA_OF_THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"  # 1,234 may also be 1.234
SWAP_MARKS = str.maketrans(",.", ".,")
CHUNK = 500  # rows held as Python lists at once; far more would be slower, by a factor of 4


@dataclass(frozen=True)
class Table:
    """The contract's columns as text, a gap being missing, indexed by `line` in the source."""

    rows: pd.DataFrame
    format: str
    n_columns: int  # that the source had, the contract's and others


def read_table(data: Data, contract: Contract) -> Table:
    """Fetch and parse `data.source`; raises ContractError if it is unreadable or lacks a column."""
    content = _fetch(data.source)
    if not content.strip():
        raise ContractError(f"{data.source} is empty, expected a table with a header.")
    table_format = _format(data, content)
    try:
        raw = _parse(content, table_format, data, contract)
    except ContractError:
        raise
    except Exception as error:  # a broken file trips its reader up anywhere
        raise ContractError(
            f"{data.source} cannot be read as {table_format}: {str(error).rstrip('.')}. "
            "Correct the file, or set data.format in params.yaml."
        ) from error
    rows = _contract_columns(raw, data.source, contract)
    rows = _gaps_to_missing(rows, data.missing)
    if rows.empty:
        raise ContractError(f"{data.source} holds a header only, expected rows below it.")
    if table_format in ("csv", "tsv"):
        rows = _point_decimals(rows, data, contract)
    return Table(rows, table_format, raw.shape[1])


def _fetch(source: str) -> bytes:
    """Read the whole source, local or remote, unpacked if it is gzip."""
    try:
        with fsspec.open(source, "rb") as file:
            content = file.read()
        return gzip.decompress(content) if content.startswith(GZIP) else content
    except FileNotFoundError as error:
        cause = error.__cause__  # a server's answer, which fsspec takes for 404 whatever it is
        why = f" or cannot be had: {cause}" if cause else ""
        raise ContractError(
            f"{source} does not exist{why}. Correct data.source in params.yaml."
        ) from error
    except IsADirectoryError as error:
        raise ContractError(
            f"{source} is a folder, expected a file. Name one of its files."
        ) from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ContractError(f"{source} is a broken gzip file: {error}. Fetch it again.") from error
    except Exception as error:  # each of its file systems has errors of its own
        raise ContractError(
            f"{source} cannot be read: {error}. Check the path and access."
        ) from error


def _format(data: Data, content: bytes) -> str:
    if data.format != "auto":
        return data.format
    if content.startswith(b"PAR1"):
        return "parquet"
    path = PurePosixPath(urlsplit(data.source).path)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() not in SUFFIX_TO_FORMAT:
        raise ContractError(
            f"{data.source} ends in {suffix or 'nothing'!r}, expected one of "
            f"{', '.join(SUFFIX_TO_FORMAT)}. Rename the file, or set data.format in params.yaml."
        )
    return SUFFIX_TO_FORMAT[suffix.lower()]


def _parse(content: bytes, table_format: str, data: Data, contract: Contract) -> pd.DataFrame:
    """Give every column of the source, indexed by `line`; headers stripped of blanks."""
    if table_format == "parquet":
        raw = _parse_parquet(content)
    elif table_format == "xlsx":
        raw = _parse_xlsx(content)
    elif table_format == "jsonl":
        raw = _parse_jsonl(_lines(content, data))
    else:
        raw = _parse_text(content, table_format, data, contract)
    raw.columns = [str(name).strip() for name in raw.columns]
    return raw.rename_axis(index="line")


def _parse_parquet(content: bytes) -> pd.DataFrame:
    # without pandas' metadata, which could hide a column in the index
    table = pq.read_table(io.BytesIO(content))
    raw = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    return raw.set_axis(range(1, len(raw) + 1))


def _parse_xlsx(content: bytes) -> pd.DataFrame:
    """Read the first sheet, whose first row that holds anything is the header."""
    sheet = pd.read_excel(io.BytesIO(content), dtype=object, header=None, keep_default_na=False)
    sheet = sheet.set_axis(range(1, len(sheet) + 1))
    sheet = sheet[sheet.map(lambda cell: str(cell).strip() != "").any(axis=1)]
    if sheet.empty:
        raise ValueError("its first sheet is empty")
    return sheet.iloc[1:].set_axis(sheet.iloc[0], axis=1)


def _parse_jsonl(lines: Iterator[str]) -> pd.DataFrame:
    """Read one JSON object a line; a key that a line leaves out is a gap."""
    rows = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows[number] = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(rows[number], dict):
            raise ValueError(f"line {number} is {line.strip()!r}, expected an object")
    return pd.DataFrame(list(rows.values()), index=list(rows), dtype=object)


def _parse_text(content: bytes, table_format: str, data: Data, contract: Contract) -> pd.DataFrame:
    """Read separated values; every line must hold as many cells as the header, or nothing."""
    separator = "\t" if table_format == "tsv" else data.separator
    if separator == "auto":
        separator = _find_separator(_lines(content, data), contract)
    rows = _numbered_rows(csv.reader(_lines(content, data), delimiter=separator, strict=True))
    _, header = next(rows, (0, []))
    rows = _of_width(rows, len(header))
    lines, columns = [], [[] for _ in header]
    while chunk := list(islice(rows, CHUNK)):
        numbers, cells = zip(*chunk, strict=True)
        lines += numbers
        for column, values in zip(columns, zip(*cells, strict=True), strict=True):
            column.append(pa.array(values, pa.string()))
    arrays = [pa.chunked_array(column, pa.string()) for column in columns]
    places = [str(place) for place in range(len(header))]  # as two columns may share a name
    return pa.table(arrays, places).to_pandas().set_axis(lines).set_axis(header, axis=1)


def _numbered_rows(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Give each row that is not blank with its first line, as quoted cells may hold line breaks."""
    line = 1
    try:
        for row in reader:
            if any(row) and "".join(row).strip():
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {line}: {error}") from error


def _of_width(rows: Iterator[tuple[int, list[str]]], width: int) -> Iterator[tuple[int, list[str]]]:
    for line, row in rows:
        if len(row) != width:
            raise ValueError(f"line {line} holds {len(row)} cells, expected {width} as the header")
        yield line, row


def _lines(content: bytes, data: Data) -> Iterator[str]:
    """Decode line by line, each with its end; raises ContractError if the encoding does not fit."""
    encoding = data.encoding
    if encoding == "auto":
        known = (name for bom, name in BOM_TO_ENCODING.items() if content.startswith(bom))
        encoding = next(known, "utf-8")
    _expect_text(content, encoding, data.source)
    return io.TextIOWrapper(io.BytesIO(content), encoding, newline="")


def _expect_text(content: bytes, encoding: str, source: str) -> None:
    try:
        text = content.decode(encoding)
    except LookupError as error:
        raise ContractError(
            f"data.encoding is {encoding!r}, expected auto or a name Python knows, such as utf-8."
        ) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ContractError(
            f"{source}, line {line}: byte 0x{content[error.start]:02x} is not {encoding}. "
            "Set data.encoding in params.yaml to the file's, such as latin-1 or cp1252."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ContractError(
            f"{source}, line {line}: there is a NUL byte, which no text holds. "
            "Correct the file, or set data.format or data.encoding in params.yaml to the file's."
        )


def _find_separator(lines: Iterator[str], contract: Contract) -> str:
    """Choose the separator under which the header holds most of the contract's columns."""
    header = next((line for line in lines if line.strip()), "")
    known = contract.spelling_to_name()

    def n_known(separator: str) -> int:
        names = next(csv.reader([header], delimiter=separator))
        return sum(name.strip() in known for name in names)

    return max(SEPARATORS, key=n_known)


def _contract_columns(raw: pd.DataFrame, source: str, contract: Contract) -> pd.DataFrame:
    """Keep the contract's columns, under their present names, all cells as text or None."""
    known = contract.spelling_to_name()
    names = [known[name] for name in raw.columns if name in known]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ContractError(
            f"{source} holds {', '.join(doubled)} twice, expected each column once. "
            "Remove or rename one of them."
        )
    if missing := [column.name for column in contract.columns if column.name not in names]:
        raise ContractError(
            f"{source} lacks {', '.join(missing)}; its columns are "
            f"{', '.join(map(str, raw.columns))}. Add the column, or give its name there as one "
            "of the contract's former_names in params.yaml."
        )
    rows = raw.rename(columns=known)[[column.name for column in contract.columns]]
    return rows.apply(_to_text)


def _to_text(column: pd.Series) -> pd.Series:
    if column.dtype == "str":
        return column
    return column.astype(object).map(str, na_action="ignore").astype("str")


def _gaps_to_missing(rows: pd.DataFrame, words: tuple[str, ...]) -> pd.DataFrame:
    rows = rows.apply(lambda column: column.str.strip())
    return rows.mask(rows.isin(["", *words]))


def _point_decimals(rows: pd.DataFrame, data: Data, contract: Contract) -> pd.DataFrame:
    """Write numbers with a decimal point, where the file has (or is said to have) a comma."""
    categorical = {feature.name for feature in contract.features if feature.kind != "numeric"}
    numbers = rows[[name for name in rows.columns if name not in categorical]]
    decimal = data.decimal if data.decimal != "auto" else _find_decimal(numbers, data.source)
    if decimal == ",":  # a point, then, is none: swapped, so that `validate` reports it
        numbers = numbers.apply(lambda column: column.str.translate(SWAP_MARKS))
    return rows.assign(**numbers)


def _find_decimal(numbers: pd.DataFrame, source: str) -> str:
    def count(pattern: str) -> int:
        return sum(int(numbers[name].str.fullmatch(pattern).sum()) for name in numbers.columns)

    n_commas = count(COMMA_NUMBER)
    if n_commas == 0:
        return "."
    if count(POINT_NUMBER):
        raise ContractError(
            f"{source} writes numbers both as 1,5 and as 1.5. "
            "Set data.decimal in params.yaml to the mark that is meant."
        )
    if count(COMMA_OF_THOUSANDS) == n_commas:
        raise ContractError(
            f"{source} writes numbers as 1,234, which may mean 1234 or 1.234. "
            'Set data.decimal in params.yaml to "," if it is the decimal mark; '
            "if it parts thousands, remove it from the file."
        )
    return ","
