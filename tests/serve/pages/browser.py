"""A real browser for the tests of the pages, and what it can tell of any page."""

import csv
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from flask.testing import FlaskClient
from playwright.sync_api import Browser, Locator, Page, Route, sync_playwright

from contract.features import Contract
from serve.pages import label

PATHS = ("/", "/predict", "/batch_predict", "/model", "/docs", "/monitor", "/no-such-page")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    "--no-sandbox",  # tests may run as root, and open no foreign page
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3, level AA

FIND_FAULTS = Path(__file__).with_name("faults.js").read_text("utf-8")


@contextmanager
def started() -> Iterator[Browser]:
    """Start Debian's browser, or Playwright's own where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, **options) -> Iterator[Page]:
    """Open a window for one server; at the end it must have had nothing to complain of."""
    context = browser.new_context(base_url=url, **{"viewport": DESK} | options)
    page, complaints = context.new_page(), []
    # that an answer has a status of 4xx is a console message, too, and meant so
    page.on("console", lambda told: _is_fault(told) and complaints.append(told.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: _is_foreign(sent.url, url) and complaints.append(sent.url))
    try:
        yield page
    finally:
        context.close()
    assert not complaints, complaints


def _is_fault(told) -> bool:
    return told.type in {"error", "warning"} and "with a status of 4" not in told.text


def _is_foreign(asked: str, url: str) -> bool:
    return not asked.startswith("blob:") and urlsplit(asked).netloc != urlsplit(url).netloc


def faults(page: Page) -> list[str]:
    """Say what hinders readers of a page: contrast, labels, headings, width, inline styles."""
    return page.evaluate(FIND_FAULTS, LEAST_CONTRAST)


def field_of(page: Page, name: str) -> Locator:
    """Find a field as a person does, by its label."""
    text = re.compile(rf"^{re.escape(label(name))}( \(optional\))?$")
    return page.get_by_role("main").get_by_label(text)


def distinct_row(contract: Contract) -> dict[str, str]:
    """Give text for every field, no two alike, so that swapped fields show."""
    row = {}
    for place, feature in enumerate(contract.features):
        if feature.categories:
            row[feature.name] = feature.categories[(place + 1) % len(feature.categories)]
        else:
            low, high = feature.range
            row[feature.name] = f"{low + (high - low) * (place + 1) / 20:.0f}"
    return row


def fill(page: Page, row: dict[str, str]) -> None:
    for name, value in row.items():
        field = field_of(page, name)
        if field.evaluate("each => each.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def drop(page: Page, path: Path, target: Locator) -> None:
    """Drag a file from outside the browser onto an element."""
    box = target.bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 10}
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})


def slow_down(page: Page, bytes_per_second: float) -> None:
    """Let uploads take their time, as on a phone."""
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
    session = page.context.new_cdp_session(page)
    session.send(
        "Network.emulateNetworkConditions", conditions | {"uploadThroughput": bytes_per_second}
    )


def answer_from(page: Page, client: FlaskClient) -> None:
    """Let an app without a server answer what the page asks."""

    def answer(route: Route) -> None:
        sent = route.request
        headers = {k: v for k, v in sent.headers.items() if k != "content-length"}
        with client.open(
            sent.url, method=sent.method, headers=headers, data=sent.post_data_buffer
        ) as response:
            route.fulfill(
                status=response.status_code, headers=dict(response.headers), body=response.data
            )

    page.route("**/*", answer)


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def table(page: Page, region: str) -> list[list[str]]:
    rows = page.get_by_role("region", name=region).locator("tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def send(page: Page) -> None:
    """Send the form and wait for the answer with its stylesheet."""
    with page.expect_navigation():
        page.get_by_role("button", name="Predict").click()


def upload(page: Page, path: Path) -> None:
    page.goto("/batch_predict")
    page.get_by_label("Drop a file here").set_input_files(path)
    page.get_by_role("button", name="Predict", exact=True).click()
