"""Pages of other apps: contracts with gaps or strange names, and a monitor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask.testing import FlaskClient
from playwright.sync_api import expect
from werkzeug.routing import Rule

from contract.artifact import make_manifest, read_manifest, write_artifact
from contract.features import Contract
from serve.app import create_app
from serve.settings import Settings
from tests.example import PLAIN, WITH_GAPS
from tests.serve.pages.browser import (
    PATHS,
    answer_from,
    distinct_row,
    faults,
    field_of,
    fill,
    opened,
    send,
)

STRANGE_NAMES = {
    "area": "1<b>&\"'",
    "rooms": "querySelectorAll",  # a field of this name must not break the page's script
    "heating": "Größe in m²",
    "condition": "a_b {{ c }}",
}


@contextmanager
def app_of(flats: Path, place: Path, contract: Contract) -> Iterator[FlaskClient]:
    """Make an app of the flats' model under a contract that differs in words alone."""
    manifest = read_manifest(flats)
    contents = {name: (flats / name).read_bytes() for name in manifest.files}
    fields = manifest.model_dump(mode="json", exclude={"version"}) | {"contract": contract}
    write_artifact(place / "final", make_manifest(fields), contents)
    app = create_app(Settings(model_folder=place / "final", prediction_log=str(place / "log.db")))
    try:
        yield app.test_client()
    finally:
        app.extensions["serve"].close()


def test_permitted_gap_may_stay_blank_in_the_form(flats, tmp_path, browser):
    gaps = Contract.model_validate(WITH_GAPS)

    with app_of(flats, tmp_path, gaps) as client, opened(browser, "http://localhost") as page:
        answer_from(page, client)
        page.goto("/predict")
        options = field_of(page, "heating").locator("option").all_inner_texts()
        send(page)
        expect(page.get_by_role("region", name="Rent")).to_contain_text("EUR/month")

    assert options == ["Not known", "gas", "district", "electric"]


def test_what_a_contract_says_is_text_and_no_markup(flats, tmp_path, browser):
    features = [each | {"name": STRANGE_NAMES[each["name"]]} for each in PLAIN["features"]]
    features[0] |= {"unit": "<u>", "description": '"><script>alert(1)</script>'}
    features[2] |= {"categories": ["<option>", "a  b", '"c"'], "former_names": ["<b>"]}
    strange = Contract.model_validate(PLAIN | {"features": features})
    row = distinct_row(strange)

    with app_of(flats, tmp_path, strange) as client, opened(browser, "http://localhost") as page:
        answer_from(page, client)
        for path in PATHS[:-1]:
            page.goto(path)
            assert faults(page) == [], path
        page.goto("/model")
        told = page.get_by_role("main").text_content().lower()
        for feature in strange.features:
            words = {feature.name, feature.unit, feature.description, *feature.categories}
            assert {text for text in words if text.lower() not in told} == set()
        page.goto("/predict")
        fill(page, row)
        send(page)
        expect(page.get_by_role("region", name="Rent")).to_contain_text("About")
        for name, value in row.items():
            assert field_of(page, name).input_value() == value


def test_monitor_is_linked_where_there_is_one(app):
    client = app.test_client()
    has_monitor = "/monitor" in {rule.rule for rule in app.url_map.iter_rules()}
    assert ('href="/monitor"' in client.get("/").text) == has_monitor

    app.url_map.add(Rule("/monitor"))

    assert 'href="/monitor"' in client.get("/").text
