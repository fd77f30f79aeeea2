"""The upload of a file: preview, progress, answer, what is wrong with it."""

import csv
import gzip
import io

import pytest
from playwright.sync_api import expect

from tests.serve.pages.browser import (
    distinct_row,
    drop,
    faults,
    slow_down,
    table,
    upload,
    write_csv,
)

SLOW = 200_000  # bytes a second


def test_file_is_previewed_predicted_and_given_back(page, server, contract, good_file):
    page.goto("/batch_predict")
    page.get_by_label("Drop a file here").set_input_files(good_file)
    sent = list(csv.DictReader(good_file.read_text("utf-8").splitlines()))
    expect(page.get_by_text("good.csv: first 5 rows")).to_be_visible()
    assert table(page, "good.csv") == [list(sent[0]), *(list(row.values()) for row in sent[:5])]

    page.get_by_role("button", name="Predict", exact=True).click()
    answer = page.get_by_role("region", name="Your predictions are ready")
    expect(answer).to_be_focused()
    assert faults(page) == []
    with page.expect_download() as download:
        answer.get_by_role("link").click()

    assert download.value.suggested_filename == "good-predicted.csv"
    text = download.value.path().read_text("utf-8")
    given = list(csv.DictReader(io.StringIO(text)))
    assert [{name: row[name] for name in sent[0]} for row in given] == sent
    logged = server.logged()[-len(sent) :]
    assert [row["source"] for row in logged] == ["batch"] * len(sent)
    assert float(given[0]["prediction"]) == pytest.approx(logged[0]["prediction"], rel=1e-5)
    shown = table(page, "Answer")
    assert shown[0][:3] == ["prediction", "lower", "upper"]
    assert shown[1][:3] == [given[0][name] for name in ("prediction", "lower", "upper")]


def test_upload_shows_how_far_it_is(page, contract, tmp_path):
    rows = [distinct_row(contract) | {"note": "x" * 100} for _ in range(3000)]
    slow_down(page, SLOW)

    upload(page, write_csv(tmp_path / "long.csv", rows))

    progress = page.get_by_role("progressbar")
    expect(page.get_by_role("status")).to_contain_text("Uploading long.csv")
    position = "document.querySelector('progress').position"
    page.wait_for_function(f"() => 0.1 < {position} && {position} < 0.9")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    expect(page.get_by_role("region", name="Your predictions are ready")).to_be_visible(
        timeout=30_000
    )
    expect(progress).to_be_hidden()


def test_upload_can_be_cancelled(page, server, contract, tmp_path):
    n_logged = len(server.logged())
    rows = [distinct_row(contract) | {"note": "x" * 100} for _ in range(10_000)]
    slow_down(page, SLOW)

    upload(page, write_csv(tmp_path / "long.csv", rows))
    page.get_by_role("button", name="Cancel").click()

    expect(page.get_by_role("status")).to_have_text("Cancelled.")
    expect(page.get_by_role("button", name="Predict", exact=True)).to_be_visible()
    assert len(server.logged()) == n_logged


def test_wrong_rows_are_listed_and_can_be_skipped(page, contract, wrong_file):
    upload(page, wrong_file)

    errors = page.get_by_role("region", name="Nothing was predicted")
    expect(errors).to_be_focused()
    expect(errors).to_contain_text("150 problems, the first 100 of them")
    listed = table(page, "Wrong values")
    assert listed[0] == ["Line", "Column", "Value", "Problem"]
    assert [row[0] for row in listed[1:]] == [str(line) for line in range(2, 202, 2)]
    assert listed[1][1:3] == [contract.names()[0], "<i>wrong</i>"]
    assert contract.features[0].domain in listed[1][3]
    assert faults(page) == []

    page.get_by_role("button", name="Skip the wrong rows").click()
    expect(page.get_by_role("region", name="Your predictions are ready")).to_be_visible()
    assert table(page, "Answer")[0][:4] == ["prediction", "lower", "upper", "error"]
    assert table(page, "Answer")[1][:3] == ["", "", ""]


def test_missing_column_is_told_and_nothing_can_be_skipped(page, contract, tmp_path):
    row = distinct_row(contract)
    lacking = contract.names()[-1]
    del row[lacking]

    upload(page, write_csv(tmp_path / "short.csv", [row]))

    expect(page.get_by_role("region", name="Nothing was predicted")).to_contain_text("1 problem:")
    assert table(page, "Wrong values")[1][:2] == ["1", lacking]
    expect(page.get_by_role("button", name="Skip the wrong rows")).to_be_hidden()


def test_file_that_is_no_table_is_told_in_a_sentence(page, tmp_path):
    path = tmp_path / "picture.csv"
    path.write_bytes(b"\x89PNG\r\n\0\0\0")

    upload(page, path)

    expect(page.locator("#errors")).to_be_focused()
    expect(page.locator("#errors h2")).to_contain_text("NUL")


def test_file_over_the_limit_is_told_before_it_is_sent(page, good_file):
    page.goto("/batch_predict")
    assert int(page.locator("#batch").get_attribute("data-max-bytes")) > 10**6
    page.evaluate("document.getElementById('batch').dataset.maxBytes = 1024")
    page.get_by_label("Drop a file here").set_input_files(good_file)
    page.on("request", lambda sent: pytest.fail(f"{sent.method} {sent.url}"))

    page.get_by_role("button", name="Predict", exact=True).click()

    expect(page.locator("#errors h2")).to_contain_text("takes at most 1 KiB")


def test_gzip_and_semicolons_are_previewed_and_predicted(page, contract, tmp_path):
    row = distinct_row(contract)
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(f"{';'.join(row)}\n{';'.join(row.values())}\n".encode()))

    upload(page, path)

    expect(page.get_by_role("region", name="Your predictions are ready")).to_be_visible()
    expect(page.get_by_role("link", name="Download rows-predicted.csv")).to_be_visible()
    assert table(page, "rows.csv.gz") == [list(row), list(row.values())]
    assert table(page, "Answer")[1][3:] == list(row.values())


def test_file_can_be_dropped(page, good_file):
    page.goto("/batch_predict")

    drop(page, good_file, page.get_by_text("Drop a file here"))

    expect(page.get_by_text("good.csv: first 5 rows")).to_be_visible()


def test_example_file_is_one_that_the_page_takes(page, tmp_path):
    page.goto("/batch_predict")
    with page.expect_download() as download:
        page.get_by_role("link", name="Get an example file").click()
    path = tmp_path / "example.csv"
    download.value.save_as(path)

    upload(page, path)

    expect(page.get_by_role("region", name="Your predictions are ready")).to_be_visible()
