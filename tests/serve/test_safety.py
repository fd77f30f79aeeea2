"""Closed by default, no foreign forms, limits, safe headers, and nothing secret in a log."""

import json
import logging
from pathlib import Path

import pytest
from flask import Flask

from contract.predictions.file import LogError
from contract.settings import SettingsError, read_settings
from serve.app import create_app
from serve.logs import JsonLines
from serve.settings import Settings
from tests.serve.test_predict import FLAT


def app_with(folder: Path, tmp_path: Path, **changes) -> Flask:
    settings = {"model_folder": folder, "prediction_log": str(tmp_path / "log.db")} | changes
    return create_app(Settings.model_validate(settings))


def test_route_without_a_mark_is_closed(app):
    app.add_url_rule("/new", view_func=lambda: "secret")

    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer "}):
        response = app.test_client().get("/new", headers=headers)
        assert response.status_code == 401
        assert "secret" not in response.text


def test_every_route_is_public_or_asks_for_its_token(flats, tmp_path):
    app = app_with(flats, tmp_path, metrics_token="s3cret", monitor_token="0ther")
    guarded = {"routes.metrics", "routes.monitor"}

    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        is_public = getattr(view, "token_name", "") is None
        assert is_public == (rule.endpoint not in guarded), rule
        if not is_public:
            assert app.test_client().get(rule.rule).status_code == 401
    app.extensions["serve"].close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("Bearer s3cret", 200),
        ("bearer s3cret", 200),
        ("Bearer S3cret", 401),
        ("s3cret", 401),
        ("Basic s3cret", 401),
        ("Bearer \xe9", 401),
        ("", 401),
    ],
)
def test_metrics_ask_for_their_token_once_it_is_set(sent, status, flats, tmp_path):
    app = app_with(flats, tmp_path, metrics_token="s3cret")

    response = app.test_client().get("/metrics", headers={"Authorization": sent})

    assert response.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
def test_form_sent_by_another_site_is_refused(headers, status, client):
    assert client.post("/predict", data=FLAT, headers=headers).status_code == status


def test_client_over_its_rate_is_told_to_wait(flats, tmp_path):
    app = app_with(flats, tmp_path, rate_limit="3/minute")
    client = app.test_client()

    statuses = [client.post("/predict", json=FLAT).status_code for _ in range(5)]

    assert statuses == [200, 200, 200, 429, 429]
    assert client.post("/predict", json=FLAT).headers["Retry-After"] == "60"
    assert client.get("/health").status_code == 200
    app.extensions["serve"].close()


def test_host_that_is_not_trusted_is_refused(flats, tmp_path):
    client = app_with(flats, tmp_path, trusted_hosts="models.example").test_client()

    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"Host": "models.example"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/predict", "/health", "/nowhere", "/static/style.css"])
def test_every_answer_has_safe_headers(path, client):
    response = client.get(path)

    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Request-ID"]
    response.close()


@pytest.mark.parametrize("given", ["a" * 65, "two words", "x\ty", "é"])
def test_request_id_that_could_forge_a_log_line_is_replaced(given, client):
    assert client.get("/health", headers={"X-Request-ID": given}).headers["X-Request-ID"] != given


def test_failure_of_our_own_is_told_without_how_it_came(app, client, monkeypatch, caplog):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("inner details")

    monkeypatch.setattr(app.extensions["serve"].log, "append", fail)

    response = client.post("/predict", json=FLAT)

    assert response.status_code == 500
    assert "inner" not in response.text
    assert "inner details" in caplog.text


def test_logs_hold_neither_tokens_nor_values(flats, tmp_path, caplog):
    app = app_with(flats, tmp_path, metrics_token="s3cret")
    row = FLAT | {"area": 123.456}
    with caplog.at_level(logging.DEBUG):
        client = app.test_client()
        client.post("/predict", json=row)
        client.post("/predict", json=row | {"rooms": 987654})
        client.get("/predict?area=123.456")
        client.get("/metrics", headers={"Authorization": "Bearer s3cret"})

    lines = [JsonLines().format(record) for record in caplog.records]
    told = "\n".join(lines)
    assert len(lines) >= 4
    assert [json.loads(line)["status"] for line in lines if "status" in line] == [
        200,
        422,
        200,
        200,
    ]
    for secret in ("s3cret", "123.456", "987654"):
        assert secret not in told
    app.extensions["serve"].close()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MODEL_POLL_S", "soon", "MODEL_POLL_S is 'soon'"),
        ("MAX_JSON_ROWS", "0", "MAX_JSON_ROWS is '0'"),
        ("MAX_UPLOAD_BYTES", "5 apples", "MAX_UPLOAD_BYTES is '5 apples'"),
        ("RATE_LIMIT", "often", "RATE_LIMIT is 'often': expected a rate such as 60/minute"),
        ("PREDICTION_LOG_SYNC", "maybe", "PREDICTION_LOG_SYNC is 'maybe'"),
    ],
)
def test_wrong_setting_is_told_by_its_name(name, value, told, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=told):
        read_settings(Settings)


def test_log_that_fails_within_an_answer_breaks_it_off(app, client, monkeypatch, caplog):
    log, append = app.extensions["serve"].log, app.extensions["serve"].log.append
    n_appended = []

    def fail_at_the_second(*arguments: object, **named: object) -> list[str]:
        n_appended.append(1)
        if len(n_appended) > 1:
            raise LogError("the disk is full")
        return append(*arguments, **named)

    monkeypatch.setattr(log, "append", fail_at_the_second)
    lines = client.get("/example.csv").text.splitlines(keepends=True)
    table = lines[0] + lines[1] * 50_000

    response = client.post("/batch_predict", data=table, content_type="text/csv")
    with pytest.raises(ConnectionAbortedError):
        response.get_data()

    assert "an answer breaks off" in caplog.text
