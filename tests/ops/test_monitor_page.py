"""The monitor's page as a file: no network, no fault, and drift at a glance on any screen."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from contract.monitoring import Edge, Hour, Seen, Spread
from ops.monitor.page import page_of
from tests.ops.reports import AREA, HEATING, MADE, WORSE, make_report
from tests.serve.pages.browser import faults, opened, started
from tests.serve.pages.test_every_page import LOOKS

HOURS = tuple(
    Hour(
        hour=MADE - timedelta(hours=47 - place),
        n_predictions=100 + place,
        n_rejected=place % 7,
        gap_share=0.01 * (place % 5),
    )
    for place in range(48)
)
CATEGORIES = Spread(
    name="heating",
    kind="nominal",
    n_values=480,
    n_gaps=20,
    labels=("gas", "<b>district</b>", "(unseen)"),
    then=(0.7, 0.3, 0.0),
    now=(0.2, 0.3, 0.5),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as found:
        yield found


@contextmanager
def shown(browser: Browser, path: Path, report, **look) -> Iterator[Page]:
    """Open the page of a report from the disk, without a network; it must ask for nothing."""
    path.write_text(page_of(report), "utf-8")
    asked = []
    with opened(browser, path.as_uri(), offline=True, **look) as page:
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto(path.as_uri())
        yield page
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


@pytest.fixture(scope="module")
def report():
    """A report with all that the page may show."""
    pair = AREA.model_copy(update={"subject": "area - rooms", "measure": "difference_of_pair"})
    small = AREA.model_copy(update={"subject": "rooms", "action": "warn"})
    columns = make_report().columns
    return make_report(
        HEATING,
        AREA,
        pair,
        small,
        summary="heating, area, area - rooms have drifted, over 500 predictions.",
        columns=[columns[0], columns[1], CATEGORIES],
        prediction=columns[0].model_copy(update={"name": "(prediction)"}),
        by_hour=HOURS,
        versions=[Seen(version="0a1b2c3d4e5f", n_predictions=500, first=MADE, last=MADE)],
        rejected=[{"field": "", "rule": "unknown_field", "n_values": 1_500}],
        edges=[
            Edge(id="019", time=MADE, column="area", value=8.5, end=8, distance=0.01),
        ],
        live_error=WORSE,
        notes=["The log holds hashes of rooms, of which no drift can be told."],
    )


@pytest.mark.parametrize("look", LOOKS)
def test_page_is_readable_and_labelled_on_any_screen(browser, tmp_path, report, look):
    with shown(browser, tmp_path / "page.html", report, **look) as page:
        assert faults(page) == []
        for summary in page.locator("summary").all():
            summary.click()
        assert faults(page) == []


def test_what_drifted_is_seen_without_scrolling_the_furthest_first(browser, tmp_path, report):
    with shown(browser, tmp_path / "page.html", report) as page:
        expect(page).to_have_title("Drifted: Monitor")
        expect(page.locator(".verdict")).to_contain_text("heating, area, area - rooms have drifted")
        cards = page.locator(".moved")
        expect(cards.first).to_be_in_viewport(ratio=0.5)
        named = cards.locator("h3").all_inner_texts()
        assert named == [
            "heatingdrifted",
            "areadrifted",
            "area - roomsdrifted",
            "roomsmoved a little",
        ]
        expect(cards.nth(1)).to_contain_text("difference of means 1.25, limit 0.25")
        shares = cards.first.get_by_role("row", name="gas").get_by_role("cell")
        assert shares.all_inner_texts() == ["70.0%", "20.0%"]
        expect(page.locator("b")).to_have_count(0)


def test_volume_refusals_and_gaps_are_drawn_by_the_hour(browser, tmp_path, report):
    with shown(browser, tmp_path / "page.html", report) as page:
        for title, most in {
            "Predictions": "147",
            "Refused values": "6",
            "Missing values": "4.0%",
        }.items():
            head = page.get_by_role("heading", name=title, exact=True)
            card = page.locator(".card", has=head).filter(has=page.locator("rect"))
            expect(card.locator("rect")).to_have_count(len(HOURS))
            expect(card).to_contain_text(f"{most} in an hour at the most")
        page.get_by_text("All hours").click()
        newest = page.get_by_role("region", name="All hours").get_by_role("row").nth(1)
        assert newest.locator("td").all_inner_texts() == ["2026-11-23 20:00", "147", "5", "2.0%"]


@pytest.mark.parametrize("look", LOOKS)
def test_page_of_an_empty_window_is_whole(browser, tmp_path, look):
    nothing = make_report(n_values=0, n_rows=0, status="too_few", columns=[], summary="None.")
    with shown(browser, tmp_path / "page.html", nothing, **look) as page:
        expect(page.locator(".verdict")).to_contain_text("Too few rows to tell")
        assert faults(page) == []
