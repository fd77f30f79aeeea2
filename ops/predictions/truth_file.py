"""Read a table of ids and truths, with suspicion: all that is wrong is told before any is used."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet

from ops.predictions.command import CommandError, printable

ID = "id"
SEPARATORS = ",;\t|"
N_TOLD = 10  # problems of a file, one by one
PACKED = (b"PK\3\4", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")  # zip and xlsx, gzip, xls
PLAIN_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
LineAndCells = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Truth:
    value: float
    line: int


@dataclass(frozen=True)
class TruthFile:
    """What a file holds, each id once."""

    path: Path
    column: str  # that held the truths
    truths: dict[str, Truth]  # by id

    def place(self, row_id: str) -> str:
        return _place(self.path, self.truths[row_id].line)


def read_truths(path: Path, names: Sequence[str]) -> TruthFile:
    """Read ids and truths, from the first column there is of those that may hold them.

    Raises CommandError that names each wrong line, at most N_TOLD of them.
    """
    with _explained(path):
        read = _READERS.get(path.suffix.lower())
        if read is None:
            raise CommandError(
                f"{path} ends in {path.suffix or 'nothing'!r}, expected one of "
                f"{', '.join(_READERS)}. Rename the file, or save it as one of them."
            )
        header, rows = read(path)
        column = _find_column(path, header, names)
        truths: dict[str, Truth] = {}
        problems = []
        for line, cells in rows:
            try:
                _expect_no_more_cells(header, cells)
                _take(truths, line, cells.get(ID), cells.get(column))
            except ValueError as error:
                problems.append(f"{_place(path, line)}: {error}")
    refuse(problems)
    if not truths:
        raise CommandError(f"{path} holds a header only, expected ids and truths below it.")
    return TruthFile(path, column, truths)


def refuse(problems: Sequence[str]) -> None:
    """Raise CommandError unless there are no problems."""
    if not problems:
        return
    told = "\n".join(problems[:N_TOLD])
    if len(problems) > N_TOLD:
        told += f"\nand {len(problems) - N_TOLD:,} more."
    raise CommandError(f"{told}\nNothing was attached. Correct the file.")


def _expect_no_more_cells(header: Sequence[str], cells: Mapping[str | None, Any]) -> None:
    """Raise ValueError if a line holds more than the header names; blanks at its end do no harm."""
    surplus = [cell for cell in cells.get(None, ()) if cell.strip()]
    if surplus:
        raise ValueError(
            f"it holds {len(header) + len(cells[None])} cells, such as {_shown(surplus[0])} behind "
            f"the last column, expected {len(header)}; write 72.5, not 72,5."
        )


def _take(truths: dict[str, Truth], line: int, id_cell: Any, truth_cell: Any) -> None:
    """Add a row to the others; raises ValueError that tells what is wrong with it."""
    try:
        row_id = str(UUID(str(id_cell).strip()))
    except ValueError:
        raise ValueError(
            f"{ID} is {_shown(id_cell)}, expected one such as an answer of the server holds."
        ) from None
    if row_id in truths:
        raise ValueError(f"{ID} {row_id} is there twice, first in line {truths[row_id].line}.")
    truths[row_id] = Truth(_number(truth_cell), line)


def _number(cell: Any) -> float:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise ValueError("the truth is blank, expected a number; leave the row out.")
    if isinstance(cell, str) and re.fullmatch(PLAIN_NUMBER, cell, flags=re.ASCII):
        cell = float(cell)
    is_number = isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)
    with suppress(OverflowError):  # of a whole number with hundreds of digits
        if is_number and math.isfinite(cell):
            return float(cell)
    raise ValueError(f"the truth is {_shown(cell)}, expected a number such as 72.5.")


def _shown(cell: Any) -> str:
    text = printable(str(cell))
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def _find_column(path: Path, header: Sequence[str], names: Sequence[str]) -> str:
    taken = next((name for name in names if name in header), None)
    for name in (ID, taken):
        if header.count(name) > 1:
            raise CommandError(
                f"{path} has {header.count(name)} columns {name}, expected one. Remove or rename "
                "the others."
            )
    if ID in header and taken is not None:
        return taken
    raise CommandError(
        f"{path} has the columns {printable(', '.join(header)) or 'none'}; expected {ID}, and one "
        f"of {', '.join(names)}. Rename its columns."
    )


def _place(path: Path, line: int) -> str:
    return f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {line}"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CommandError(f"{path} does not exist. Name a file of ids and truths.") from None
    except IsADirectoryError:
        raise CommandError(f"{path} is a folder. Name a file of ids and truths.") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8: {error.reason}. Save it as UTF-8.") from error
    except (csv.Error, pa.ArrowException) as error:
        kind = path.suffix.lower().removeprefix(".")
        raise CommandError(f"{path} cannot be read as {kind}: {error}. Save it anew.") from error


def _read_csv(path: Path) -> tuple[list[str], Iterable[LineAndCells]]:
    lines = io.StringIO(_text(path), newline="")
    first = lines.readline()
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(first)
    header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
    return header, _rows(path, csv.DictReader(lines, header, delimiter=separator, strict=True))


def _rows(path: Path, rows: csv.DictReader) -> Iterator[LineAndCells]:
    line = 1  # the header
    try:
        for cells in rows:
            line = rows.line_num + 1
            yield line, cells
    except csv.Error as error:
        raise CommandError(
            f"{_place(path, line + 1)} cannot be read as csv, nor what follows: {error}. Look for "
            "a quote that is left open."
        ) from error


def _separator(header: str) -> str:
    """Find what parts the id from other names."""
    for separator in SEPARATORS:
        if ID in [name.strip(' "\r\n') for name in header.split(separator)]:
            return separator
    return SEPARATORS[0]


def _read_parquet(path: Path) -> tuple[list[str], Iterable[LineAndCells]]:
    table = pyarrow.parquet.ParquetFile(pa.BufferReader(path.read_bytes())).read()
    cells = chain.from_iterable(batch.to_pylist() for batch in table.to_batches())
    return table.column_names, enumerate(cells, start=1)


def _read_jsonl(path: Path) -> tuple[list[str], Iterable[LineAndCells]]:
    """Read objects; their keys are the header, wherever the file has them first."""
    rows = [
        (line, _object(path, line, text))
        for line, text in enumerate(_text(path).split("\n"), start=1)
        if text.strip()
    ]
    return list(dict.fromkeys(name for _, cells in rows for name in cells)), rows


def _object(path: Path, line: int, text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_expect_each_once)
    except _TwiceError as error:
        raise CommandError(f"{_place(path, line)} has {error} twice. Remove one.") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandError(f"{_place(path, line)} is no JSON object. Correct the file.")
    return found


class _TwiceError(Exception):
    pass


def _expect_each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(printable(next(name for name in names if names.count(name) > 1)))
    return found


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(PACKED):
        raise CommandError(
            f"{path} is packed, as spreadsheets are, whatever its name. Save it as csv, or unpack."
        )
    text = content.decode("utf-8-sig")
    if "\0" in text:
        raise CommandError(f"{path} holds NUL characters, as UTF-16 does. Save it as UTF-8.")
    return text


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
}
