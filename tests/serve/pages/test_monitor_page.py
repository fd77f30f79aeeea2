"""The page of the monitor in a browser: what it shows at a glance, to whom, and on any screen."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from contract.features import Contract
from tests.example import ROOT
from tests.serve.pages.browser import distinct_row, faults, opened
from tests.serve.pages.test_every_page import LOOKS
from tests.serve.servers import Server, running

TOKEN = "0pen-it"
AS_PASSWORD = {"http_credentials": {"username": "me", "password": TOKEN}}
N_ROWS = 1_200


@pytest.fixture(scope="module")
def drifted(trained_once, contract, tmp_path_factory) -> Iterator[Server]:
    """A server whose newest rows are all alike, and a report that says what that means."""
    folder = trained_once.root / "models/final"
    place = tmp_path_factory.mktemp("drifted")
    with running(folder, place, MONITOR_TOKEN=TOKEN) as server:
        assert server.ask_json("/predict", [typed_row(contract)] * N_ROWS)[0] == 200
        wrong = typed_row(contract) | {contract.names()[0]: "none of these"}
        assert server.ask_json("/predict", wrong)[0] == 422
        report = place / "monitor.json"
        command = [sys.executable, "-m", "ops.monitor", "--report", report, "--model", folder]
        environment = trained_once.environment() | {
            "PREDICTION_LOG": str(server.log_path),
            "PYTHONPATH": str(ROOT),
        }
        run = subprocess.run(command, cwd=trained_once.root, env=environment, capture_output=True)
        assert run.returncode == 1, run.stderr
        yield server


def typed_row(contract: Contract) -> dict:
    row = distinct_row(contract)
    numbers = {each.name for each in contract.features if each.kind == "numeric"}
    return {name: int(value) if name in numbers else value for name, value in row.items()}


@pytest.fixture
def page(browser, drifted) -> Iterator[Page]:
    with opened(browser, drifted.url, **AS_PASSWORD) as found:
        yield found


@pytest.mark.parametrize("look", LOOKS)
def test_page_with_all_that_it_may_show_is_readable_and_labelled(browser, drifted, look):
    with opened(browser, drifted.url, **AS_PASSWORD, **look) as page:
        page.goto("/monitor")
        assert faults(page) == []
        for summary in page.locator("summary").all():
            summary.click()
        assert faults(page) == []


def test_verdict_and_drifted_columns_come_first_and_are_named(page, contract):
    page.goto("/monitor")

    expect(page.get_by_role("region", name="The last report Drifted")).to_be_visible()
    assert page.title().startswith("Drifted: Monitor")
    cards = page.locator(".spreads > li")
    expect(cards).to_have_count(len(contract.features) + 1)
    expect(cards.first).to_contain_text("drifted in the last report")
    findings = page.get_by_role("list", name="Findings")
    expect(findings).to_contain_text(contract.names()[-1])


def test_live_view_tells_counts_shares_and_refusals(page, contract, drifted):
    page.goto("/monitor")

    main = page.get_by_role("main")
    expect(main.locator(".tiles")).to_contain_text(f"{N_ROWS:,}")
    refused = page.get_by_role("table", name="Why values were refused")
    expect(refused.get_by_role("row").nth(1)).to_contain_text("unknown category")
    versions = page.get_by_role("table", name="Versions that answered")
    expect(versions).to_contain_text("in service")
    feature = next(each for each in contract.features if each.categories)
    shares = page.get_by_role("table", name=f"Shares of {feature.name}")
    chosen = typed_row(contract)[feature.name]
    head = page.get_by_role("rowheader", name=chosen, exact=True)
    expect(shares.locator("tr", has=head)).to_contain_text("100\u00a0%")


def test_details_open_by_keyboard(page):
    page.goto("/monitor")

    summary = page.get_by_text("All hours")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="Predictions by hour")).to_be_visible()


def test_without_the_token_the_page_says_how_to_give_it(browser, drifted):
    def as_if_the_question_was_cancelled(route: Route) -> None:
        answer = route.fetch()
        headers = {k: v for k, v in answer.headers.items() if k != "www-authenticate"}
        route.fulfill(response=answer, headers=headers)

    with opened(browser, drifted.url) as page:
        page.route("/monitor", as_if_the_question_was_cancelled)
        page.goto("/monitor")
        expect(page.get_by_role("heading", level=1)).to_have_text("This page needs its token")
        assert faults(page) == []


def test_start_page_and_navigation_lead_to_the_monitor(page):
    page.goto("/")
    page.get_by_role("main").get_by_role("link", name="monitor").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Monitor")
    here = page.get_by_role("navigation", name="Pages").get_by_role("link", name="Monitor")
    expect(here).to_have_attribute("aria-current", "page")
