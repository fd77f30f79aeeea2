"""One prediction, by form and JSON: what comes in, what goes out, and what is logged."""

import json
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings

from contract.artifact import load_model
from contract.encoding import encode
from tests.contract.strategies import rows_of
from tests.example import CONTRACT

FLAT = {"area": 80.5, "rooms": 3, "heating": "gas", "condition": "good"}
FEATURES_ONLY = rows_of(CONTRACT).map(lambda row: {name: row[name] for name in CONTRACT.names()})
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def logged(app) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(app.extensions["serve"].settings.log_path)) as database:
        database.row_factory = sqlite3.Row
        return database.execute("SELECT * FROM predictions ORDER BY id").fetchall()


def rejected(app) -> set[tuple]:
    app.extensions["serve"].close()
    with closing(sqlite3.connect(app.extensions["serve"].settings.log_path)) as database:
        return set(database.execute("SELECT source, field, rule, count FROM rejections"))


def expected(flats, row: dict) -> tuple[float, float, float]:
    told = load_model(flats).predict(encode({key: [value] for key, value in row.items()}, CONTRACT))
    return told.prediction[0], told.lower[0], told.upper[0]


def test_json_object_is_answered_with_prediction_interval_unit_model_and_id(client, app, flats):
    response = client.post("/predict", json=FLAT)

    prediction, lower, upper = expected(flats, FLAT)
    answer = response.json
    assert response.status_code == 200
    assert answer["prediction"] == pytest.approx(prediction, rel=1e-5)
    assert answer["interval"] == pytest.approx([lower, upper], rel=1e-5)
    assert answer["unit"] == "EUR/month"
    assert answer["model"] == load_model(flats).manifest.version
    assert [row["id"] for row in logged(app)] == [answer["id"]]


def test_answered_row_is_in_the_log_with_all_that_is_known_of_it(client, app):
    response = client.post("/predict", json=FLAT, headers={"X-Request-ID": "mine-1"})

    (row,) = logged(app)
    assert json.loads(row["features"]) == FLAT
    assert row["prediction"] == pytest.approx(response.json["prediction"], rel=1e-5)
    assert [row["lower"], row["upper"]] == pytest.approx(response.json["interval"], rel=1e-5)
    assert (row["source"], row["request_id"]) == ("api", "mine-1")
    assert row["model"] == response.json["model"]
    assert 0 < row["latency_ms"] < 10_000
    assert response.headers["X-Request-ID"] == "mine-1"


def test_list_of_rows_is_answered_row_by_row_in_its_order(client, app):
    rows = [FLAT | {"area": area} for area in (30.0, 200.0, 90.0)]

    answers = client.post("/predict", json=rows).json["predictions"]

    alone = [client.post("/predict", json=row).json for row in rows]
    assert [each["prediction"] for each in answers] == [each["prediction"] for each in alone]
    assert len({each["id"] for each in answers}) == 3
    assert [json.loads(row["features"])["area"] for row in logged(app)[:3]] == [30, 200, 90]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(row=FEATURES_ONLY)
def test_every_row_of_the_contract_is_predicted_as_the_model_does(row, client, flats):
    response = client.post("/predict", json=row)

    assert response.status_code == 200
    prediction, lower, upper = expected(flats, row)
    assert response.json["prediction"] == pytest.approx(prediction, rel=1e-5, abs=1e-5)
    assert response.json["interval"] == pytest.approx([lower, upper], rel=1e-5, abs=1e-5)


def test_former_name_of_a_column_is_understood(client, app):
    row = {"type of heating" if name == "heating" else name: v for name, v in FLAT.items()}

    assert client.post("/predict", json=row).status_code == 200
    assert client.post("/predict", data=row).status_code == 200
    assert [json.loads(each["features"]) for each in logged(app)] == [FLAT, FLAT]


@pytest.mark.parametrize(
    ("changes", "field", "value", "told"),
    [
        ({"area": 9999}, "area", 9999, "8 to 500 m²"),
        ({"area": -50}, "area", -50, "8 to 500 m²"),
        ({"area": "80"}, "area", "80", "number"),
        ({"area": None}, "area", None, "required"),
        ({"area": True}, "area", True, "number"),
        ({"area": [80]}, "area", "[80]", "number"),
        ({"rooms": 2.5}, "rooms", 2.5, "whole number"),
        ({"heating": "coal"}, "heating", "coal", "one of gas, district, electric"),
        ({"heating": "GAS"}, "heating", "GAS", "gas"),
        ({"colour": "red"}, "colour", "red", "unknown"),
        ({"rent": 800}, "rent", 800, "unknown"),
    ],
)
def test_value_outside_the_contract_is_told_with_its_field(
    changes, field, value, told, client, app
):
    response = client.post("/predict", json=FLAT | changes)

    (problem,) = response.json["errors"]
    assert response.status_code == 422
    assert (problem["field"], problem["value"], problem["row"]) == (field, value, None)
    assert told in problem["reason"]
    rule = problem_rule(changes)
    assert rejected(app) == {("api", "" if rule == "unknown_field" else field, rule, 1)}
    assert logged(app) == []


def problem_rule(changes: dict) -> str:
    rules = {
        "colour": "unknown_field",
        "rent": "unknown_field",
        "heating": "unknown_category",
        "rooms": "not_whole",
    }
    (name, value), *_ = changes.items()
    if name in rules:
        return rules[name]
    return {9999: "out_of_range", -50: "out_of_range", None: "missing"}.get(
        value if isinstance(value, int | None) else "", "wrong_type"
    )


@pytest.mark.parametrize(
    "body",
    ['{"area": NaN}', '{"area": Infinity}', '{"area": 1e400}', '{"area": -1e999}'],
)
def test_number_that_is_not_finite_is_refused(body, client):
    row = json.dumps(FLAT).replace('"area": 80.5', body[1:-1])

    response = client.post("/predict", data=row, content_type="application/json")

    assert response.status_code == 422
    assert [problem["field"] for problem in response.json["errors"]] == ["area"]


def test_all_problems_of_all_rows_are_told_at_once(client):
    rows = [FLAT, {"area": 1}, FLAT | {"rooms": "x", "heating": ""}]

    errors = client.post("/predict", json=rows).json["errors"]

    assert {(each["row"], each["field"]) for each in errors} == {
        (1, "area"),
        (1, "rooms"),
        (1, "heating"),
        (1, "condition"),
        (2, "rooms"),
        (2, "heating"),
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b'{"area": 80', 400),
        (b"[" * 200_000, 400),
        (b"\xff\xfe{}", 400),
        (b"nonsense", 400),
        (b"[]", 422),
        (b"[[1]]", 422),
        (b"7", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b" " * 10_000_000, 413),
        (json.dumps([FLAT] * 101).encode(), 413),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else str(value),
)
def test_body_that_is_no_row_is_told(body, status, client, app):
    response = client.post("/predict", data=body, content_type="application/json")

    assert response.status_code == status
    assert response.json.keys() & {"error", "errors"}
    assert client.post("/predict", json=FLAT).status_code == 200


def test_content_type_and_method_that_are_not_understood_are_told(client):
    plain = client.post("/predict", data="x", content_type="text/plain")
    deleted = client.delete("/predict")

    assert (plain.status_code, deleted.status_code) == (415, 405)
    assert "application/json" in plain.json["error"]
    assert "POST" in deleted.headers["Allow"]


def test_form_is_read_as_text_and_answered_as_a_page(client, app):
    typed = {"area": " 80.5 ", "rooms": "3", "heating": "gas", "condition": "good"}

    response = client.post("/predict", data=typed, headers=BROWSER)

    assert response.status_code == 200
    assert response.mimetype == "text/html"
    (row,) = logged(app)
    assert json.loads(row["features"]) == FLAT
    assert row["source"] == "form"


def test_form_keeps_what_was_typed_and_marks_each_wrong_field(client, app):
    typed = {"area": "9999", "rooms": "three", "heating": "gas", "condition": ""}

    response = client.post("/predict", data=typed, headers=BROWSER)

    assert response.status_code == 422
    assert 'value="9999"' in response.text
    assert 'value="three"' in response.text
    assert response.text.count('aria-invalid="true"') == 3
    assert rejected(app) == {
        ("form", "area", "out_of_range", 1),
        ("form", "rooms", "wrong_type", 1),
        ("form", "condition", "missing", 1),
    }


def test_what_was_typed_is_never_markup(client):
    response = client.post("/predict", data={"area": '"><script>x</script>'}, headers=BROWSER)

    assert "<script>x" not in response.text


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("a&" * 5_000, 413, "over 1,000 fields"),
        ("&".join(f"a{n}=1" for n in range(2_000)), 413, "over 1,000 fields"),
        ("area=" + "9" * 3_000_000, 413, "expected 2,097,152 or fewer"),
        ("area=1&rooms=2&area=3", 400, "the field area twice"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_form_that_is_too_large_or_ambiguous_is_refused(body, status, told, client):
    response = client.post("/predict", data=body, content_type="application/x-www-form-urlencoded")

    assert response.status_code == status
    assert told in response.json["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"area": 1, "area": 2}', 400),
        ('[{"rooms": 1}, {"area": 1, "\\u0061rea": 2}]', 400),
        ('{"area": {"area": 1, "area": 2}}', 400),
        ('{"area": "a:b:c", "rooms": "::"}', 422),
        ('[[[{"area": 1}]]]', 422),
        ('{"area": %s, "x": "::"}' % ("9" * 4_000), 422),
    ],
    ids=lambda value: str(value)[:20],
)
def test_key_that_comes_twice_is_refused(body, status, client):
    response = client.post("/predict", data=body, content_type="application/json")

    assert response.status_code == status
    assert ("area twice" in response.text) == (status == 400)


@pytest.mark.parametrize("query", ["ids=maybe", "ids=on&ids=off", "ids="])
def test_file_with_an_unclear_wish_for_ids_is_refused(query, client):
    response = client.post(f"/batch_predict?{query}", data="area\n1\n", content_type="text/csv")

    assert response.status_code == 400
    assert "expected one of off, on" in response.json["error"]


@pytest.mark.parametrize("query", ["on_error=maybe", "on_error=skip&on_error=refuse"])
def test_file_with_an_unclear_wish_for_wrong_rows_is_refused(query, client):
    response = client.post(f"/batch_predict?{query}", data="area\n1\n", content_type="text/csv")

    assert response.status_code == 400
    assert "expected one of refuse, skip" in response.json["error"]


def test_form_is_no_way_to_send_a_file(client):
    response = client.post("/batch_predict", data={"file": "area"})

    assert response.status_code == 415
