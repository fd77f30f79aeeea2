"""Damage to the log's files while workers append and the shipper delivers.

What is promised: once the files are set aside, every row that is acknowledged arrives; rows
acknowledged before, but after the damage, arrive as well once `recover` has been run.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from contract.predictions.damage import files_aside
from contract.predictions.settings import LogSettings
from ops.predictions.__main__ import parse
from tests.logged import write_log
from tests.postgres import FreshDatabase
from tests.serve.test_shipper import Site, wait_for

N_BEFORE = 3_000  # that are in the main file
PAGE = 4096


def overwrite_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(PAGE))


def unlink(*suffixes: str) -> Callable[[Path], None]:
    def unlink_them(path: Path) -> None:
        for suffix in suffixes:
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").unlink()

    return unlink_them


DAMAGES = {
    "cut to nothing": lambda path: os.truncate(path, 0),
    "cut to a half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut to one page": lambda path: os.truncate(path, PAGE),
    "cut within a page": lambda path: os.truncate(path, 5 * PAGE + 100),
    "first page overwritten": overwrite_first_page,
    "WAL deleted": unlink("-wal"),
    "WAL cut": lambda path: os.truncate(f"{path}-wal", 0),
    "file deleted": unlink(""),
    "all deleted": unlink("", "-wal", "-shm"),
}
LEAVES_NOTHING = {"all deleted"}
MAY_MEND = {"first page overwritten"}  # all remember it, and a copy of the WAL may bring it back


@pytest.fixture
def site(tmp_path, postgres) -> Iterator[Site]:
    """Two workers whose rows arrive, and a log that is not all in its WAL."""
    site = Site(tmp_path, postgres.url)
    write_log(site.log_path, N_BEFORE)
    site.start_worker()
    site.start_worker()
    wait_for(lambda: site.acknowledged.exists() and len(site.ids()) > 50)
    wait_for(lambda: site.n_waiting() < 20)
    yield site
    site.stop()


def ids_there(postgres: FreshDatabase) -> set[str]:
    return {row_id for (row_id,) in postgres.execute("SELECT id::text FROM predictions")}


def run_on(site: Site, n_rows: int = 100) -> None:
    n_before = len(site.ids())
    wait_for(lambda: len(site.ids()) > n_before + n_rows)


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_row_that_is_acknowledged_after_the_damage_is_lost(damage, site, postgres):
    DAMAGES[damage](site.log_path)
    n_at_damage = len(site.ids())
    is_noticed = damage not in LEAVES_NOTHING | MAY_MEND
    wait_for(lambda: bool(files_aside(site.log_path)) or not is_noticed)
    time.sleep(1)  # both have met it, and what was committed before is acknowledged
    n_at_notice = len(site.ids())
    run_on(site)
    site.stop()
    n_at_notice = len(site.ids()) if damage in MAY_MEND else n_at_notice

    ids = site.ids()
    arrive(site, postgres)
    assert set(ids[n_at_notice:]) - ids_there(postgres) == set()
    asides = files_aside(site.log_path)
    assert len(asides) == 1 or damage in LEAVES_NOTHING | MAY_MEND
    assert len(asides) <= 1
    for aside in asides:
        assert f"is now {aside}, and a new log is begun" in site.output.read_text()
        recover(site, aside)
    arrive(site, postgres)
    assert set(ids[n_at_damage:]) - ids_there(postgres) == set()
    assert postgres.execute("SELECT count(*) = count(DISTINCT id) FROM predictions") == [(True,)]


def recover(site: Site, aside: Path) -> None:
    options = parse(["recover", str(aside)])
    options.run(options, LogSettings(prediction_log=str(site.log_path)))


def arrive(site: Site, postgres: FreshDatabase) -> None:
    """Deliver what is left in the file, as the next server would."""
    options = parse(["ship"])
    settings = LogSettings(prediction_log=str(site.log_path), database_url=postgres.url)
    options.run(options, settings)
