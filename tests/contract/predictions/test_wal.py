"""What a WAL is said to hold is what SQLite has in it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from contract.predictions.log import PredictionLog
from contract.predictions.wal import NOTHING_SEEN, pages_in
from tests.example import ROOT
from tests.logged import GAS, append

PAGE = 4096
HEAD = b"\x37\x7f\x06\x82"


def write(log: PredictionLog, n_rows: int) -> None:
    for _ in range(n_rows):
        append(log, [GAS])


def n_pages_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA page_count").fetchone()[0]


def copied(path: Path) -> None:
    """Copy all of the WAL, which the next who writes then begins anew over what it holds."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(RESTART)")


def test_pages_behind_the_main_file_are_in_the_wal_however_often_it_was_looked_at(log, path):
    wal, seen = Path(f"{path}-wal"), NOTHING_SEEN
    for n_rows in (400, 1, 100):
        for _ in range(2):
            write(log, n_rows)
            seen = pages_in(wal, seen)

            assert seen == pages_in(wal)
            behind = set(range(path.stat().st_size // PAGE + 1, n_pages_of(path) + 1))
            assert behind <= seen.pages
            assert max(seen.pages) <= n_pages_of(path)
        copied(path)


def test_wal_that_is_begun_anew_holds_no_more_what_was_copied(log, path):
    write(log, 400)
    before = pages_in(Path(f"{path}-wal"))
    copied(path)
    write(log, 1)

    assert len(pages_in(Path(f"{path}-wal"), before).pages) < len(before.pages) / 4


def test_what_was_seen_of_a_wal_that_is_cut_since_counts_no_more(log, path):
    write(log, 100)
    wal = Path(f"{path}-wal")
    seen = pages_in(wal)
    content = wal.read_bytes()
    other = path.with_name("cut-wal")
    other.write_bytes(content[: len(content) // 2])

    assert pages_in(other, seen) == pages_in(other)
    assert 0 < len(pages_in(other, seen).pages) < len(seen.pages)


def test_wal_may_be_cut_while_it_is_looked_at(log, path):
    write(log, 400)
    wal = Path(f"{path}-wal")
    content, other = wal.read_bytes() * 4, path.with_name("cut-wal")
    other.write_bytes(content)
    program = f"""if True:
        import sys, time
        from pathlib import Path
        from contract.predictions.wal import pages_in
        end_s = time.monotonic() + 1
        while time.monotonic() < end_s:
            pages_in(Path({str(other)!r}))
    """
    looking = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    while looking.poll() is None:
        for n_bytes in (len(content) // 3, 0, 20):
            os.truncate(other, n_bytes)
        other.write_bytes(content)

    assert looking.returncode == 0


@pytest.mark.parametrize("content", [None, b"", HEAD * 3, HEAD * 8, bytes(20_000)])
def test_wal_that_holds_no_frame_has_no_pages(content, tmp_path):
    wal = tmp_path / "log-wal"
    if content is not None:
        wal.write_bytes(content)

    assert not pages_in(wal).pages
