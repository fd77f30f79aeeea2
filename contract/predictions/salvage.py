"""Read what is left of a log that SQLite cannot open any more, page by page.

SQLite finds rows by way of other pages, and gives none where one of those is missing. Here each
page that can be had is looked at for itself: those of the WAL, where it has them, else those of the
main file, else older ones in the WAL that it had copied into the part that is gone.

Source: sqlite.org/fileformat2.html, "B-tree Pages", "Record Format" and "The Freelist".
"""

import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contract.predictions.file import MAGIC
from contract.predictions.wal import current, frames_in, mapped, page_size_of, start_of

TABLE_LEAF, HEADER_BYTES = 13, 100  # of the first page, before its own
INT_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # by the type of a value
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
COLUMNS = {
    "models": ("version", "time", "contract"),
    "predictions": (
        *("id", "time", "model", "source", "request_id", "features"),
        *("prediction", "lower", "upper", "latency_ms"),
    ),
    "rejections": ("id", "time", "source", "field", "rule", "count"),
    "truths": ("id", "time", "truth"),
}
NUMBERS = {"prediction", "lower", "upper", "latency_ms", "count", "truth"}
MAY_BE_NONE = {"prediction", "lower", "upper"}


class Salvage:
    """What is left of one log; to be used in a `with`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_missing = 0  # pages, known once all rows were read
        self._stack = ExitStack()

    def __enter__(self) -> "Salvage":
        wal = Path(f"{self.path}.wal")  # as it is named once set aside
        wal = wal if wal.exists() else Path(f"{self.path}-wal")
        self._main = self._stack.enter_context(mapped(self.path))
        self._wal = self._stack.enter_context(mapped(wal))
        self._page_size = page_size_of(self._wal)
        frames = frames_in(self._wal)
        starts = {place: start_of(self._wal, place) for place in range(len(frames))}
        salts = frames["salts"][frames["page"] > 0]
        newest = current(frames, salts[0]) if len(salts) else salts
        self._newest = {int(frames["page"][place]): starts[place] for place in newest.tolist()}
        self._older = dict(zip(frames["page"].tolist(), starts.values(), strict=True))
        n_in_main = -(-len(self._main) // self._page_size)
        first = self.page(1) or b""
        n_told = int.from_bytes(first[28:32]) if first.startswith(MAGIC) else n_in_main
        n_in_wal = int(frames["n_pages"][newest[-1]]) if len(newest) else 0
        self.n_pages = n_in_wal or max(n_told, n_in_main and 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def page(self, number: int) -> bytes | None:
        """Give a page as it was committed last, as far as this is known; None if it is lost."""
        start, size = (number - 1) * self._page_size, self._page_size
        for content, at in (
            (self._wal, self._newest.get(number)),
            (self._main, start if start + size <= len(self._main) else None),
            (self._wal, self._older.get(number)),
        ):
            if at is not None:
                return content[at : at + size]
        return None

    def rows(self) -> Iterator[tuple[str, tuple]]:
        """Give each row that can be read as the name of its table and values of its COLUMNS."""
        free = self._free_pages()
        for number in range(1, self.n_pages + 1):
            page = self.page(number)
            if page is None or not any(page):
                self.n_missing += 1
            elif number not in free:
                yield from self._rows_of(page, HEADER_BYTES if number == 1 else 0)

    def _free_pages(self) -> set[int]:
        """Give the pages that hold rows no more, though these can still be read."""
        free: set[int] = set()
        first = self.page(1)
        trunk = int.from_bytes(first[32:36]) if first and first.startswith(MAGIC) else 0
        while trunk and trunk not in free:
            free.add(trunk)
            page = self.page(trunk)
            if page is None:
                break
            trunk, n_leaves = struct.unpack_from(">II", page)
            if n_leaves > len(page) // 4 - 2:
                break
            free |= {*struct.unpack_from(f">{n_leaves}I", page, 8)}
        return free

    def _rows_of(self, page: bytes, header: int) -> Iterator[tuple[str, tuple]]:
        if page[header] != TABLE_LEAF:
            return
        (n_cells,) = struct.unpack_from(">H", page, header + 3)
        for place in range(min(n_cells, (len(page) - header - 8) // 2)):
            (start,) = struct.unpack_from(">H", page, header + 8 + 2 * place)
            try:
                row = as_row(_values(self._payload(page, start)))
            except (IndexError, ValueError, struct.error):  # this one is damaged
                continue
            if row:
                yield row

    def _payload(self, page: bytes, start: int) -> bytes:
        """Give the content of a cell, which goes on in other pages if it is long."""
        size = len(page)  # our files reserve no bytes at its end
        n_bytes, start = _varint(page, start)
        _, start = _varint(page, start)
        most, least = size - 35, (size - 12) * 32 // 255 - 23
        if n_bytes <= most:
            return page[start : start + n_bytes]
        n_here = least + (n_bytes - least) % (size - 4)
        n_here = n_here if n_here <= most else least
        parts, n_left = [page[start : start + n_here]], n_bytes - n_here
        (following,) = struct.unpack_from(">I", page, start + n_here)
        while n_left > 0:
            if not 0 < following <= self.n_pages or (more := self.page(following)) is None:
                raise ValueError("the row goes on in a page that is lost")
            parts.append(more[4 : 4 + n_left])
            n_left -= len(parts[-1])
            (following,) = struct.unpack_from(">I", more)
        return b"".join(parts)


def as_row(values: Sequence[Any]) -> tuple[str, tuple] | None:
    """Say which table's row this is, and give its values; None if it is none of ours."""
    if len(values) < 2 or values[0] is not None:  # `seq` is kept elsewhere
        return None
    for table, names in COLUMNS.items():
        told = dict(zip(names, values[1:], strict=False))
        if len(values) == len(names) + 1 and all(map(_is_right, told, told.values())):
            return table, tuple(values[1:])
    return None


def _is_right(name: str, value: Any) -> bool:
    if value is None:
        return name in MAY_BE_NONE
    if name in NUMBERS:
        return isinstance(value, int | float)
    if not isinstance(value, str):
        return False
    if name in ("id", "time"):
        return bool((ID if name == "id" else TIME).fullmatch(value))
    return name not in ("features", "contract") or (value.startswith("{") and value.endswith("}"))


def _values(record: bytes) -> list[Any]:
    """Read the values of a record; raises ValueError if they are not those of a log."""
    n_header, place = _varint(record, 0)
    types = []
    while place < n_header:
        kind, place = _varint(record, place)
        types.append(kind)
    values, place = [], n_header
    for kind in types:
        n_bytes = INT_BYTES.get(kind, 8 if kind == 7 else (kind - 13) // 2 if kind > 12 else 0)
        content = record[place : place + n_bytes]
        if len(content) != n_bytes:
            raise ValueError("the record ends too early")
        values.append(_value(kind, content))
        place += n_bytes
    if place != len(record):
        raise ValueError("the record goes on behind its last value")
    return values


def _value(kind: int, content: bytes) -> Any:
    if kind in INT_BYTES:
        return int.from_bytes(content, signed=True)
    if kind == 7:
        return struct.unpack(">d", content)[0]
    if kind > 12 and kind % 2:
        return bytes(content).decode()
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind]
    raise ValueError(f"no value of a log has the type {kind}")


def _varint(content: bytes, start: int) -> tuple[int, int]:
    """Read a number of one to nine bytes; give it and where it ends."""
    value = 0
    for place in range(start, start + 8):
        value = value << 7 | content[place] & 0x7F
        if content[place] < 0x80:
            return value, place + 1
    return value << 8 | content[start + 8], start + 9
