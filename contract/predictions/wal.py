"""Which pages the WAL of SQLite holds, read beside SQLite.

Source: sqlite.org/fileformat2.html, "The WAL File Format".
"""

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

HEADER = struct.Struct(">IIIIIIII")  # its third is the size of a page, then count and salts
SALTS = slice(16, 24)  # of its bytes
USUAL_PAGE_SIZE = 4096
FRAME_HEADER_BYTES = 24  # before each page; what we need of it:
# page, size of the database if it commits, salts, which are those of the WAL unless it is older
FRAME = [("page", ">u4"), ("n_pages", ">u4"), ("salts", ">u8")]


class WalPages(NamedTuple):
    """What somebody has seen of a WAL: the pages of its first frames, as far as committed."""

    salts: bytes  # by which it is known from one begun anew in its place
    n_bytes: int  # of the whole file
    n_frames: int
    pages: frozenset[int]


NOTHING_SEEN = WalPages(b"", 0, 0, frozenset())


def pages_in(wal: Path, seen: WalPages = NOTHING_SEEN) -> WalPages:
    """Give the pages that a WAL holds since it was begun; those before them were copied."""
    try:
        file = os.open(wal, os.O_RDONLY)
    except FileNotFoundError:
        return NOTHING_SEEN
    try:
        header, n_bytes = os.pread(file, HEADER.size, 0), os.fstat(file).st_size
        salts = header[SALTS]
        if salts != seen.salts or n_bytes < seen.n_bytes:
            seen = NOTHING_SEEN
        frames = _read_frames(file, header, seen.n_frames)
    finally:
        os.close(file)  # SQLite has its locks elsewhere, so that we may
    new = current(frames, int.from_bytes(salts, "big"))
    pages = seen.pages.union(frames["page"][new].tolist())
    return WalPages(salts, n_bytes, seen.n_frames + len(new), pages)


def _read_frames(file: int, header: bytes, first: int) -> "np.ndarray":
    """Read the heads of the frames that are not older than the header, from one on.

    Not by a mapping, which ends the process where the file is cut meanwhile.
    """
    import numpy as np  # here, as a process that delivers starts without

    step, heads = FRAME_HEADER_BYTES + page_size_of(header), bytearray()
    start, n_bytes = HEADER.size + first * step, np.dtype(FRAME).itemsize
    salts = (header[SALTS], bytes(8))  # the latter in a hole
    while len(head := os.pread(file, n_bytes, start)) == n_bytes and head[8:] in salts:
        heads += head
        start += step
    return np.frombuffer(heads, FRAME)


@contextmanager
def mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """Look into a file that nobody cuts, without reading all; one that is not there is empty."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield b""
        return
    with file:
        if not os.fstat(file.fileno()).st_size:  # nothing cannot be mapped
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            yield content


def frames_in(wal: bytes | mmap.mmap) -> "np.ndarray":
    """Give the heads of frames as an array of FRAME, newer before what is left of older.

    Where a WAL was emptied and written on, those of the hole have page 0.
    """
    import numpy as np  # here, as a process that delivers starts without

    step = FRAME_HEADER_BYTES + page_size_of(wal)
    start = min(HEADER.size, len(wal))
    # a copy, since a file whose bytes are in use cannot be closed
    return np.ndarray((len(wal) - start) // step, FRAME, wal, start, (step,)).copy()


def current(frames: "np.ndarray", salts: int) -> "np.ndarray":
    """Give the places of the frames with these salts, as far as they were committed."""
    (ours,) = (frames["salts"] == salts).nonzero()
    (commits,) = frames["n_pages"][ours].nonzero()
    return ours[: commits[-1] + 1 if len(commits) else 0]


def start_of(wal: bytes | mmap.mmap, place: int) -> int:
    """Say at which byte the page of a frame begins."""
    step = FRAME_HEADER_BYTES + page_size_of(wal)
    return HEADER.size + place * step + FRAME_HEADER_BYTES


def page_size_of(wal: bytes | mmap.mmap) -> int:
    """Give the size of a page, also of a WAL that has lost its head."""
    size = HEADER.unpack_from(wal)[2] if len(wal) >= HEADER.size else 0
    return size or USUAL_PAGE_SIZE
