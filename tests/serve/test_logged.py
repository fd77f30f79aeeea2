"""What the server leaves in the prediction log, by all ways in."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from contract.features import Contract
from contract.predictions.privacy import HASHED, PrivacyError
from serve.app import create_app, wsgi
from serve.settings import Settings
from tests.example import CONTRACT, NUMBERS_ONLY
from tests.serve.models import write_model
from tests.serve.test_predict import BROWSER, FLAT

KEY = "sixteen letters!"
CSV = ",".join(FLAT) + "\n" + ",".join(map(str, FLAT.values())) + "\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    write_model(tmp_path / "final")
    return tmp_path / "final"


def app_of(folder: Path, **settings: str) -> Flask:
    log = {"prediction_log": str(folder.parent / "log.db")}
    return create_app(Settings.model_validate({"model_folder": folder} | log | settings))


def select(folder: Path, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(folder.parent / "log.db")) as database:
        return database.execute(statement).fetchall()


def ask_all_ways(app: Flask) -> list[dict]:
    """Predict one flat by JSON, form and file; give the features that were stored."""
    client, folder = app.test_client(), app.extensions["serve"].settings.model_folder
    file = {"file": (io.BytesIO(CSV.encode()), "flats.csv")}
    answers = [
        client.post("/predict", json=FLAT),
        client.post("/predict", data=FLAT),
        client.post("/batch_predict", data=file, buffered=True),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    app.extensions["serve"].close()
    return [json.loads(text) for (text,) in select(folder, "SELECT features FROM predictions")]


def test_all_ways_store_the_same_features(folder):
    assert ask_all_ways(app_of(folder)) == [FLAT] * 3


@pytest.mark.parametrize("way", ["query", "form"])
def test_each_way_tells_the_ids_by_which_the_truth_can_be_attached(way, folder):
    app = app_of(folder)
    client = app.test_client()
    file = {"file": (io.BytesIO((CSV + CSV.splitlines()[1]).encode()), "flats.csv")}
    query = "?ids=on" if way == "query" else ""
    sent = file if query else file | {"ids": "on"}

    one = client.post("/predict", json=FLAT).json["id"]
    page = client.post("/predict", data=FLAT, headers=BROWSER).text
    table = client.post(f"/batch_predict{query}", data=sent, buffered=True).text

    app.extensions["serve"].close()
    logged = [row_id for (row_id,) in select(folder, "SELECT id FROM predictions ORDER BY seq")]
    assert len(logged) == 4
    assert logged[0] == one
    assert f"<code>{logged[1]}</code>" in page
    told = csv.DictReader(io.StringIO(table))
    assert [row["prediction_id"] for row in told] == logged[2:]


def test_no_features_are_stored_if_they_are_off(folder):
    assert ask_all_ways(app_of(folder, prediction_log_features="off")) == [{}] * 3


@pytest.mark.parametrize(
    ("policy", "hashed"), [("hash", {*FLAT}), ("area, heating", {"area", "heating"})]
)
def test_hashed_features_are_stored_as_equal_hashes_whatever_the_way(policy, hashed, folder):
    app = app_of(folder, prediction_log_features=policy, prediction_log_key=KEY)

    one, *others = ask_all_ways(app)

    assert others == [one, one]
    assert {name for name, value in one.items() if str(value).startswith(HASHED)} == hashed
    assert {name: FLAT[name] for name in FLAT if name not in hashed}.items() <= one.items()


def test_misspelt_feature_stops_the_start_with_one_sentence(folder, monkeypatch):
    monkeypatch.setenv("MODEL_FOLDER", str(folder))
    monkeypatch.setenv("PREDICTION_LOG_FEATURES", "heatin")

    with pytest.raises(SystemExit, match="The server cannot start: PREDICTION_LOG_FEATURES is"):
        wsgi()


def test_model_without_a_feature_that_is_to_be_hashed_is_not_taken(folder):
    app = app_of(folder, prediction_log_features="heating", prediction_log_key=KEY)
    serving = app.extensions["serve"].serving
    before = serving.current

    write_model(folder, contract=Contract.model_validate(NUMBERS_ONLY))
    serving.look()

    assert serving.current is before
    assert serving.problem.startswith(f"{PrivacyError.__name__}: PREDICTION_LOG_FEATURES")


def test_contract_of_each_model_in_service_is_in_the_log(folder):
    app = app_of(folder)
    first = app.extensions["serve"].serving.current.version
    app.test_client().post("/predict", json=FLAT)
    second = write_model(folder, contract=Contract.model_validate(NUMBERS_ONLY))
    app.extensions["serve"].serving.look()

    app.test_client().post("/predict", json={"area": 80.5, "rooms": 3})
    app.extensions["serve"].close()

    told = dict(select(folder, "SELECT version, contract FROM models ORDER BY seq"))
    assert [*told] == [first, second]
    assert Contract.model_validate_json(told[first]) == CONTRACT
