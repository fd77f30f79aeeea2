"""What holds of every page: readable anywhere, labelled, linked, and of use without a script."""

import csv
import io
import json
import os
import shlex
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from contract.artifact import read_manifest
from serve.pages import figure, label
from tests.example import ROOT
from tests.serve.pages.browser import (
    DESK,
    PATHS,
    PHONE,
    distinct_row,
    faults,
    fill,
    opened,
    send,
    table,
    upload,
)

SAMPLE = ROOT / "data/sample/students.csv"
LOOKS = [
    pytest.param({"viewport": size, "color_scheme": scheme}, id=f"{size['width']}-{scheme}")
    for size in (PHONE, DESK)
    for scheme in ("light", "dark")
]


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_readable_and_labelled(browser, server, contract, good_file, look):
    with opened(browser, server.url, **look) as page:
        for path in PATHS:
            page.goto(path)
            assert faults(page) == [], path
        page.goto("/predict")
        send(page)
        assert faults(page) == []
        fill(page, distinct_row(contract))
        send(page)
        assert faults(page) == []
        upload(page, good_file)
        expect(page.get_by_role("region", name="Your predictions are ready")).to_be_visible()
        assert faults(page) == []


def test_pages_need_no_script(browser, server, contract, good_file, wrong_file):
    with opened(browser, server.url, java_script_enabled=False) as page:
        page.goto("/predict")
        fill(page, distinct_row(contract))
        send(page)
        expect(page.get_by_role("region", name=label(contract.target.name))).to_contain_text(
            "About"
        )

        with page.expect_download() as download:
            upload(page, good_file)
        given = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8"))))
        assert len(given) == 300
        assert float(given[0]["prediction"])

        upload(page, wrong_file)
        expect(page.get_by_role("heading", level=1)).to_have_text("Nothing was predicted")
        assert len(table(page, "Wrong values")) == 101
        page.get_by_role("link", name="Back to the form").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Predict a whole file")


def test_every_link_of_the_pages_leads_somewhere(page, server):
    seen = set()
    for path in PATHS:
        page.goto(path)
        seen |= set(page.locator("a[href^='/']").evaluate_all("all => all.map(a => a.pathname)"))

    assert {path: server.ask(path)[0] for path in seen} == dict.fromkeys(seen, 200)
    assert seen >= {"/", "/predict", "/batch_predict", "/model", "/docs", "/openapi.json"}


def test_docs_show_calls_that_work(page, server, contract):
    page.goto("/docs")

    calls = page.get_by_role("region", name="Example call").all_inner_texts()
    (call,) = [call for call in calls if "--data " in call]
    _, url, _, header, _, body = shlex.split(call.replace("\\\n", ""))
    name, value = header.split(": ")
    status, _, answer = server.ask(url.removeprefix(server.url), body.encode(), {name: value})
    assert list(json.loads(body)) == contract.names()
    assert (status, json.loads(answer)["unit"]) == (200, contract.target.unit)
    assert any("/batch_predict'" in call and "@rows.csv" in call for call in calls)


def test_model_page_shows_contract_scores_and_interval(page, server, contract):
    manifest = read_manifest(server.model_folder)
    page.goto("/model")

    text = page.locator("main").inner_text()
    for told in (manifest.version, manifest.metrics[manifest.score], manifest.interval.half_width):
        assert (told if isinstance(told, str) else figure(told)) in text
    for column in contract.columns:
        assert column.name in text
        assert column.description.lower() in text.lower()


def test_screenshots_for_the_readme_can_be_taken(page, contract, tmp_path):
    """Set SCREENSHOTS to a folder, such as docs/images, to keep them."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))

    page.goto("/predict")
    fill(page, {name: row[name] for name in contract.names()})
    send(page)
    shoot(page, "form", folder / "predict.png")
    upload(page, SAMPLE)
    expect(page.get_by_role("region", name="Your predictions are ready")).to_be_visible()
    shoot(page, "#answer", folder / "batch.png")

    assert all(10_000 < path.stat().st_size < 500_000 for path in folder.glob("*.png"))


def shoot(page: Page, last: str, path: Path) -> None:
    """Take a picture of the page from its top to the end of an element."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    box = page.locator(last).bounding_box()
    clip = {"x": 0, "y": 0, "width": DESK["width"], "height": box["y"] + box["height"] + 48}
    page.screenshot(path=path, full_page=True, clip=clip)
