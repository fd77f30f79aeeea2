"""An uploaded CSV: its separator, its header, and its rows in chunks of text cells."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import ConvertOptions, InvalidRow, ParseOptions, ReadOptions, open_csv

from serve.errors import TooLargeError, UploadError

GZIP = b"\x1f\x8b"
BOM = codecs.BOM_UTF8
SEPARATORS = (",", ";", "\t")
CHUNK_BYTES = 2**19  # read at once, some 10,000 rows; also the longest row
CHUNK_ROWS = 10_000  # given at once, as short rows may have long answers
N_TOLD = 5  # rows of a wrong length
LINE_END = r"\r\n|\r|\n"
OPEN_QUOTE = "Is a quotation mark left open?"


@dataclass(frozen=True)
class Limits:
    """How large a file may be."""

    max_bytes: int  # unpacked
    max_columns: int = 1_000
    max_rows: int = 20_000_000


@dataclass(frozen=True)
class Chunk:
    """Some rows, all cells text as sent."""

    cells: pa.RecordBatch
    lines: np.ndarray  # at which each row begins, as an editor counts, from 1

    def parts(self) -> Iterator["Chunk"]:
        for start in range(0, len(self.lines), CHUNK_ROWS):
            yield Chunk(self.cells.slice(start, CHUNK_ROWS), self.lines[start : start + CHUNK_ROWS])


class Upload:
    """A CSV as it is read: the header first, then chunk by chunk.

    Raises UploadError or TooLargeError as soon as the file turns out to be no such table.
    """

    def __init__(self, file: BinaryIO, known: Collection[str], limits: Limits):
        """Read the header, parted by the separator that gives most of the known names."""
        self._checked = _CheckedText(file, limits.max_bytes)
        self._bytes = io.BufferedReader(self._checked, CHUNK_BYTES)
        self._limits = limits
        start = self._bytes.peek()
        self.bom = BOM if start.startswith(BOM) else b""
        text = io.StringIO(start[len(self.bom) :].decode("utf-8", "ignore"), newline="")
        self.separator = max(SEPARATORS, key=lambda each: _score(text, each, known))
        self.header, self.header_line = _read_header(text, self.separator)
        header = text.getvalue()[: text.tell()]
        self.line_end = "\r\n" if header.endswith("\r\n") else "\n"
        self._check_header(header, start)
        self._bytes.read(len(self.bom) + len(header.encode()))

    def _check_header(self, header: str, start: bytes) -> None:
        if not self.header:
            raise UploadError("The file is empty, expected a header and rows below it.")
        if not header.endswith(("\n", "\r")) and len(start) >= CHUNK_BYTES:
            raise UploadError(f"The first line is longer than {CHUNK_BYTES:,} bytes. {OPEN_QUOTE}")
        if len(self.header) > self._limits.max_columns:
            raise TooLargeError(
                f"The file has {len(self.header):,} columns, "
                f"expected {self._limits.max_columns:,} or fewer."
            )

    @property
    def has_quotes(self) -> bool:
        """Whether a quotation mark was read so far; without one, no cell needs any."""
        return self._checked.has_quotes

    def chunks(self) -> Iterator[Chunk]:
        """Give the rows; lines with nothing but separators are left out, as blank ones are."""
        n_rows = 0
        if self._bytes.peek(1):
            for chunk in self._read():
                n_rows += len(chunk.lines)
                if n_rows > self._limits.max_rows:
                    raise TooLargeError(f"The file has over {self._limits.max_rows:,} rows.")
                yield from chunk.parts()
        if not n_rows:
            raise UploadError("The file holds a header only, expected rows below it.")

    def _read(self) -> Iterator[Chunk]:
        names = [str(place) for place in range(len(self.header))]  # headers may repeat a name
        lines = _Lines(self.header_line + 1, len(names))
        try:
            with open_csv(
                self._bytes,
                ReadOptions(use_threads=False, block_size=CHUNK_BYTES, column_names=names),
                ParseOptions(
                    delimiter=self.separator,
                    newlines_in_values=True,
                    ignore_empty_lines=False,  # or nobody knew the lines of the others
                    invalid_row_handler=lines.note_uneven,
                ),
                ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=[],
                    check_utf8=False,  # done already
                ),
            ) as reader:
                for batch in reader:
                    yield _without_blank(Chunk(batch, lines.of(batch, self.has_quotes)))
        except pa.ArrowInvalid as error:
            raise _explained(error, lines.next_line) from error
        lines.check_end(self._checked.tail)


def _explained(error: pa.ArrowInvalid, line: int) -> UploadError:
    if "straddling" in str(error):
        return UploadError(
            f"The row that begins in line {line} is longer than {CHUNK_BYTES:,} bytes. {OPEN_QUOTE}"
        )
    return UploadError(f"The file cannot be read as CSV from line {line} on: {str(error)[:200]}.")


def _without_blank(chunk: Chunk) -> Chunk:
    blank = np.ones(len(chunk.lines), dtype=bool)
    for cells in chunk.cells.columns:
        blank &= pc.equal(cells, "").to_numpy(zero_copy_only=False)
        if not blank.any():
            return chunk
    return Chunk(chunk.cells.filter(pa.array(~blank)), chunk.lines[~blank])


def _score(text: io.StringIO, separator: str, known: Collection[str]) -> tuple[int, int]:
    try:
        header, _ = _read_header(text, separator)
    except UploadError:
        return 0, 0
    return sum(name.strip() in known for name in header), len(header)


def _read_header(text: io.StringIO, separator: str) -> tuple[list[str], int]:
    """Give the first row that is not blank, and how many lines lie up to its end."""
    text.seek(0)
    reader = csv.reader(text, delimiter=separator)
    try:
        header = next((row for row in reader if any(cell.strip() for cell in row)), [])
    except csv.Error as error:
        raise UploadError(f"The header cannot be read: {error}. {OPEN_QUOTE}") from error
    return header, reader.line_num


class _CheckedText(io.RawIOBase):
    """The unpacked bytes of a file: UTF-8 without NUL, and no more of them than allowed."""

    def __init__(self, file: BinaryIO, max_bytes: int):
        self._file = _LookedAt(file)
        self._is_gzip = self._file.start == GZIP
        if self._is_gzip:
            self._file = gzip.GzipFile(fileobj=self._file, mode="rb")
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._max_bytes, self._n_bytes, self._n_lines = max_bytes, 0, 0
        self.has_quotes = False
        self.tail = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data = self._unpacked(len(buffer))
        self._check(data)
        self.has_quotes = self.has_quotes or b'"' in data
        self.tail = data[-4:] or self.tail
        buffer[: len(data)] = data
        return len(data)

    def _unpacked(self, n_bytes: int) -> bytes:
        """Read as many bytes as asked for; fewer only at the end."""
        data = b""
        try:
            while len(data) < n_bytes and (more := self._file.read(n_bytes - len(data))):
                data += more
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UploadError(f"The file is broken gzip: {error}. Pack it again.") from error
        return data

    def _check(self, data: bytes) -> None:
        self._n_bytes += len(data)
        if self._n_bytes > self._max_bytes:
            unpacked = " unpacked" if self._is_gzip else ""
            raise TooLargeError(f"The file is larger than {self._max_bytes:,} bytes{unpacked}.")
        if b"\0" in data:
            raise self._not_text("a NUL byte", data[: data.index(b"\0")])
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise self._not_text("bytes that are no UTF-8", data[: error.start]) from error
        self._n_lines += data.count(b"\n")

    def _not_text(self, found: str, before: bytes) -> UploadError:
        line = self._n_lines + before.count(b"\n") + 1
        return UploadError(f"Line {line} holds {found}, expected CSV. Save the table as CSV UTF-8.")


class _LookedAt:
    """A file whose first two bytes are known, wherever it can be wound back to or not."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.start = self._unread = file.read(2)

    def read(self, n_bytes: int) -> bytes:
        data, self._unread = self._unread[:n_bytes], self._unread[n_bytes:]
        return data + self._file.read(n_bytes - len(data))


class _Lines:
    """The line at which each row begins, also after blank lines, and line ends within cells."""

    def __init__(self, first_line: int, n_columns: int):
        self.next_line = first_line
        self._n_columns = n_columns
        self._n_rows = 0
        self._uneven: list[InvalidRow] = []
        self._last_cell = ""

    def note_uneven(self, row: InvalidRow) -> str:
        self._uneven.append(row)
        return "skip"

    def of(self, rows: pa.RecordBatch, may_hold_line_ends: bool) -> np.ndarray:
        """Give the lines of the next rows; raises UploadError if any between them is uneven."""
        n_inner = _count_line_ends(rows) if may_hold_line_ends else np.zeros(len(rows), np.int64)
        self._check_even(n_inner)
        after = self.next_line + np.cumsum(n_inner + 1)
        if len(rows):
            self._n_rows += len(rows)
            self.next_line = int(after[-1])
            self._last_cell = rows.column(self._n_columns - 1)[-1].as_py()
        return after - n_inner - 1

    def check_end(self, tail: bytes) -> None:
        """Raise UploadError if the file ended too early, within a quoted cell."""
        self._check_even(np.zeros(0, np.int64), at_end=True)
        if "\n" in self._last_cell and not tail.rstrip(b"\r\n").endswith(b'"'):
            line = self.next_line - 1 - self._last_cell.count("\n")
            raise UploadError(f"The last cell begins in line {line} and never ends. {OPEN_QUOTE}")

    def _check_even(self, n_inner: np.ndarray, at_end: bool = False) -> None:
        told, line_ends_in_uneven = [], 0
        for place, row in enumerate(self._uneven):
            n_before = row.number - 1 - self._n_rows - place  # of the rows now at hand
            if n_before > len(n_inner) and not at_end:
                break  # Arrow reads ahead
            line = self.next_line + n_before + place + n_inner[:n_before].sum()
            told.append(f"line {line + line_ends_in_uneven} has {row.actual_columns}")
            line_ends_in_uneven += row.text.count("\n")
        if told:
            more = ", ..." if len(told) > N_TOLD else ""
            hint = f" {OPEN_QUOTE}" if line_ends_in_uneven else ""
            raise UploadError(
                f"The header has {self._n_columns} cells, but {', '.join(told[:N_TOLD])}{more}."
                f"{hint}"
            )


def _count_line_ends(rows: pa.RecordBatch) -> np.ndarray:
    """Count the line ends within the cells of each row."""
    n_inner = np.zeros(len(rows), np.int64)
    for cells in rows.columns:
        content = cells.buffers()[2]
        if content and any(end in content.to_pybytes() for end in (b"\n", b"\r")):
            n_inner += pc.count_substring_regex(cells, LINE_END).to_numpy()
    return n_inner
