"""The form: every field is its own, errors stand beside them, the keyboard is enough."""

import re

from playwright.sync_api import expect

from contract.artifact import read_manifest
from serve.pages import label, rounded_to, times
from tests.serve.pages.browser import distinct_row, faults, field_of, fill, send


def test_each_field_reaches_its_own_feature_in_the_log(page, server, contract):
    row = distinct_row(contract)
    page.goto("/predict")

    fill(page, row)
    send(page)

    expect(page.get_by_role("region", name=label(contract.target.name))).to_be_focused()
    logged = server.logged()[-1]
    assert {name: str(value) for name, value in logged["features"].items()} == row
    assert logged["source"] == "form"
    assert len(set(row.values())) == len(row)


def test_answer_is_told_in_words_that_agree_with_the_log(page, server, contract):
    page.goto("/predict")
    fill(page, distinct_row(contract))
    send(page)

    answer = page.get_by_role("region", name=label(contract.target.name))
    logged, interval = server.logged()[-1], read_manifest(server.model_folder).interval
    about, lower, upper = (
        rounded_to(logged[key], interval.half_width) for key in ("prediction", "lower", "upper")
    )
    expect(answer).to_contain_text(f"About {about} {contract.target.unit}.")
    expect(answer).to_contain_text(
        f"{times(interval.level)}, the true value lies between {lower} and {upper}."
    )
    expect(answer).to_contain_text(logged["model"])
    expect(answer).to_contain_text(logged["id"])


def test_fields_offer_what_the_contract_allows(page, contract):
    page.goto("/predict")

    for feature in contract.features:
        field = field_of(page, feature.name)
        assert field.get_attribute("name") == feature.name
        if feature.categories:
            assert field.locator("option").all_inner_texts() == ["Choose …", *feature.categories]
        else:
            ends = [float(field.get_attribute(key)) for key in ("min", "max")]
            assert ends == list(feature.range)
            assert field.get_attribute("step") == {"int": "1", "float": "any"}[feature.dtype]


def test_wrong_fields_are_marked_and_what_was_typed_stays(page, contract):
    row = distinct_row(contract)
    number = next(each.name for each in contract.features if each.kind == "numeric")
    blank = next(each.name for each in contract.features if each.categories)
    row[number] = "9999"
    page.goto("/predict")

    fill(page, {name: value for name, value in row.items() if name != blank})
    send(page)

    alert = page.get_by_role("alert")
    expect(alert).to_be_focused()
    expect(alert.get_by_role("link")).to_have_count(2)
    assert page.title().startswith("Please correct")
    for feature in contract.features:
        field = field_of(page, feature.name)
        is_wrong = feature.name in (number, blank)
        assert field.input_value() == ("" if feature.name == blank else row[feature.name])
        assert field.get_attribute("aria-invalid") == ("true" if is_wrong else None)
        if is_wrong:
            expect(field).to_have_accessible_description(
                re.compile(f"xpected .*{re.escape(feature.domain)}")
            )
    assert faults(page) == []
    alert.get_by_role("link", name=label(number)).click()
    expect(field_of(page, number)).to_be_focused()


def test_form_works_by_keyboard_alone(page, server, contract):
    row = distinct_row(contract)
    page.goto("/predict")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")

    for feature in contract.features:
        page.keyboard.press("Tab")
        expect(field_of(page, feature.name)).to_be_focused()
        if feature.categories:
            for _ in range(feature.categories.index(row[feature.name]) + 1):
                page.keyboard.press("ArrowDown")
        else:
            page.keyboard.type(row[feature.name])
    page.keyboard.press("Enter")

    expect(page.get_by_role("region", name=label(contract.target.name))).to_be_focused()
    logged = server.logged()[-1]["features"]
    assert {name: str(value) for name, value in logged.items()} == row


def test_letters_in_a_number_are_told_by_the_browser_and_stay(page, contract):
    number = next(each.name for each in contract.features if each.kind == "numeric")
    page.goto("/predict")

    field_of(page, number).press_sequentially("1e")
    page.get_by_role("button", name="Predict").click()

    expect(field_of(page, number)).to_be_focused()
    assert field_of(page, number).evaluate("each => each.validity.badInput")
    expect(page.get_by_role("alert")).to_have_count(0)
