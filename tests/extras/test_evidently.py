"""Evidently's pages on logged and on new rows: made by Evidently, and read in a real browser."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page

from contract.artifact import load_model
from contract.features import PREDICTION
from ops.simulate import simulate
from ops.train_rows import TRAIN_ROWS
from tests.conftest import Project
from tests.example import ROOT
from tests.ops.test_monitor import category_of, log_rows, number_of
from tests.serve.pages.browser import started

pytestmark = pytest.mark.extras

PYTHON = ROOT / ".venv-evidently/bin/python"
SILENT = """
import runpy, sys
def refuse(event, arguments):
    assert event not in ("socket.connect", "socket.getaddrinfo"), f"{event} {arguments}"
sys.addaudithook(refuse)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
N_ROWS = 600
SEED = 11


@pytest.fixture
def place(trained, monkeypatch) -> Project:
    monkeypatch.chdir(trained.root)
    return trained


@pytest.fixture
def run(place) -> Callable[..., subprocess.CompletedProcess]:
    """Run a module where Evidently is installed and no connection may be opened."""

    def run_module(*arguments: str) -> subprocess.CompletedProcess:
        log = {"PREDICTION_LOG": "log.db"}
        ended = place.run(str(PYTHON), "-c", SILENT, *arguments, check=False, env=log)
        assert "Warning" not in ended.stdout
        return ended

    return run_module


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as found:
        yield found


@pytest.fixture
def rows(place) -> pd.DataFrame:
    """Rows like those of the training, but for one number that is lower by 15."""
    contract, rows = load_model().manifest.contract, simulate(N_ROWS, SEED)
    name = number_of(contract)
    return rows.assign(**{name: (rows[name] - 15).clip(0)})


def verdicts(browser: Browser, path: Path) -> dict[str, str]:
    """Open a page without any network; give what it says of each column."""
    context = browser.new_context(offline=True)
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda told: told.type == "error" and complaints.append(told.text))
    try:
        page.goto(path.as_uri())
        page.get_by_text("Dataset Drift is").wait_for()
        found = dict(_rows(page))
    finally:
        context.close()
    assert asked == [path.as_uri()]
    assert complaints == []
    return found


def _rows(page: Page) -> Iterator[tuple[str, str]]:
    """Give column and verdict of each line of the table."""
    for row in page.locator("tbody tr").all():
        cells = [cell.strip() for cell in row.locator("td").all_inner_texts()]
        if len(cells) > 5:
            yield cells[1], cells[5]


def test_page_of_the_log_names_the_shifted_column_and_needs_no_network(run, rows, browser, place):
    model = load_model()
    names = model.manifest.contract.names()
    log_rows(place.root / "log.db", model, rows[names])

    ended = run("ops.monitor", "--evidently", "page.html")

    assert ended.returncode == 1, ended.stdout
    assert "Evidently's page is page.html." in ended.stdout
    found = verdicts(browser, place.root / "page.html")
    assert {*found} == {*names, PREDICTION}
    assert found[number_of(model.manifest.contract)] == "Detected"


def test_page_of_new_rows_names_the_shifted_column(run, rows, browser, place):
    contract = load_model().manifest.contract
    rows.to_csv("new.csv", index=False)

    ended = run("ops.drift", "--source", "new.csv", "--evidently", "page.html")

    assert ended.returncode == 1, ended.stdout
    found = verdicts(browser, place.root / "page.html")
    assert {*found} == {column.name for column in contract.columns}
    assert {name for name, said in found.items() if said == "Detected"} == {number_of(contract)}


def test_columns_that_are_constant_or_have_no_value_and_a_single_row(run, rows, browser, place):
    model = load_model()
    contract = model.manifest.contract
    told = rows[contract.names()].assign(**{number_of(contract): 70})
    gap = {category_of(contract): None}
    log_rows(place.root / "log.db", model, told, hide=lambda row: row | gap)

    ended = run("ops.monitor", "--evidently", "page.html", "--last", "1")

    assert ended.returncode == 2, ended.stdout
    assert f"Evidently leaves out {category_of(contract)}, which has no value" in ended.stdout
    assert category_of(contract) not in verdicts(browser, place.root / "page.html")
    assert run("ops.monitor", "--evidently", "page.html").returncode == 1


def test_empty_log_gives_no_page_and_a_sentence(run, place):
    model = load_model()
    log_rows(place.root / "log.db", model, simulate(1, SEED)[model.manifest.contract.names()])

    ended = run("ops.monitor", "--evidently", "page.html", "--since", "2100-01-01")

    assert ended.returncode == 2, ended.stdout
    assert "page.html is not written, as Evidently has no value to compare." in ended.stdout
    assert not (place.root / "page.html").exists()


def test_without_the_train_rows_it_says_how_to_get_them(run, rows, place):
    rows.to_csv("new.csv", index=False)
    TRAIN_ROWS.unlink()

    ended = run("ops.drift", "--source", "new.csv", "--evidently", "page.html")

    assert ended.returncode == 3
    assert "data/split/train.parquet is not here, expected the rows that model " in ended.stdout
    assert "Traceback" not in ended.stdout
