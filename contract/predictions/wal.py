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
    with mapped(wal) as content:  # SQLite has its locks elsewhere, so that we may close it
        salts, n_bytes = content[SALTS], len(content)
        if salts != seen.salts or n_bytes < seen.n_bytes:
            seen = NOTHING_SEEN
        frames = frames_in(content, seen.n_frames)
    new = current(frames, int.from_bytes(salts, "big"))
    pages = seen.pages.union(frames["page"][new].tolist())
    return WalPages(salts, n_bytes, seen.n_frames + len(new), pages)


@contextmanager
def mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """Look into a file without reading all of it; one that is not there is empty."""
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


def frames_in(wal: bytes | mmap.mmap, first: int = 0) -> "np.ndarray":
    """Give the heads of frames as an array of FRAME, from one on, newer before what is left of old.

    Where a WAL was emptied and written on, those of the hole have page 0.
    """
    import numpy as np  # here, as a process that delivers starts without

    step = FRAME_HEADER_BYTES + page_size_of(wal)
    start = min(HEADER.size + first * step, len(wal))
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
