"""One browser for all tests of the pages, and files to upload."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from contract.artifact import read_manifest
from contract.features import Contract
from tests.serve.pages.browser import distinct_row, opened, started, write_csv


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with started() as found:
        yield found


@pytest.fixture
def page(browser, server) -> Iterator[Page]:
    with opened(browser, server.url) as found:
        yield found


@pytest.fixture(scope="session")
def contract(server) -> Contract:
    return read_manifest(server.model_folder).contract


@pytest.fixture
def good_file(contract, tmp_path) -> Path:
    rows = [distinct_row(contract) | {"note": f'row {n}, says: "n"'} for n in range(300)]
    return write_csv(tmp_path / "good.csv", rows)


@pytest.fixture
def wrong_file(contract, tmp_path) -> Path:
    """A file whose first feature is wrong in 150 of 300 rows, from line 2 on."""
    rows = [distinct_row(contract) for _ in range(300)]
    for row in rows[::2]:
        row[contract.names()[0]] = "<i>wrong</i>"
    return write_csv(tmp_path / "wrong.csv", rows)
