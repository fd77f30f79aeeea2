"""GET /monitor: the last report and the live view, whatever of them there is, and who may look."""

import json
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract.artifact import FINAL
from contract.features import PREDICTION, Contract
from contract.predictions.log import PredictionLog
from contract.predictions.pruning import first_id
from contract.profiler import axes_of, make_profile
from serve.app import create_app
from serve.live import N_ROWS, Known, LiveColumn, look, n_rows_read
from serve.monitor import Kept
from serve.settings import Settings
from tests.example import CONTRACT, PLAIN, changed, make_rows
from tests.logged import GAS, append, describe, write_log
from tests.ops.reports import AREA, make_report
from tests.serve.test_predict import BROWSER, FLAT


def known(contract: Contract = CONTRACT) -> Known:
    """Hold rows against 400 rows of training."""
    rows = make_rows(400, contract=contract)
    axes = axes_of(contract)
    profile = make_profile(rows, axes)
    target = contract.target.name
    predicted = make_profile({PREDICTION: rows[target]}, {PREDICTION: axes[target]})
    return Known(
        contract, profile.model_copy(update={"columns": profile.columns | predicted.columns})
    )


def column(live, name: str) -> LiveColumn:
    return next(each for each in live.columns if each.name == name)


def log_rows(path: Path, rows: list[dict], contract: Contract = CONTRACT, **facts) -> None:
    with closing(PredictionLog(path)) as log:
        describe(log, contract)
        append(log, rows, **facts)


def test_live_view_counts_what_was_answered_and_refused(opened):
    client = opened()
    client.post("/predict", json=[FLAT] * 5)
    client.post("/predict", json=FLAT | {"rooms": "x"})

    live = client.get("/monitor").json["live"]

    assert live["n_last_day"] == live["stats"]["n_predictions"] == 5
    assert live["stats"]["rejected"][0]["field"] == "rooms"
    assert live["hours"][-1]["n_predictions"] + live["hours"][-2]["n_predictions"] == 5
    assert len(live["hours"]) == 24
    names = [each["name"] for each in live["columns"]]
    assert names == [*CONTRACT.names(), CONTRACT.target.name]
    assert "without reference.json" in live["notes"][0]


def test_rows_stand_beside_those_of_the_training(tmp_path):
    training = known()
    rows = make_rows(400, seed=1)[CONTRACT.names()].to_dict("records")
    log_rows(tmp_path / "log.db", [row | {"area": row["area"] / 2} for row in rows])

    live = look(tmp_path / "log.db", training)

    area, heating = column(live, "area"), column(live, "heating")
    assert area.now.mean == pytest.approx(area.then.mean / 2, rel=0.1)
    assert {bar.label for bar in heating.bars} == set(CONTRACT.features[2].categories)
    for each in (area, heating, column(live, "rent")):
        assert sum(bar.then for bar in each.bars) == pytest.approx(1)
        assert sum(bar.now for bar in each.bars) == pytest.approx(1)
        assert each.note == ""


def test_gaps_are_told_and_rows_of_another_contract_hold_none(tmp_path):
    path = tmp_path / "log.db"
    log_rows(path, [GAS | {"area": None}] * 2 + [GAS] * 6)
    older = {name: value for name, value in GAS.items() if name != "area"}
    log_rows(path, [older | {"rooms": "three", "heating": "coal"}] * 3, model="older")

    live = look(path, known())

    area, rooms, heating = (column(live, name) for name in ("area", "rooms", "heating"))
    assert (area.n_values, area.n_gaps, area.gap_share_then) == (6, 2, 0)
    assert (rooms.n_values, rooms.n_gaps) == (8, 0)
    assert [bar.label for bar in heating.bars][-1] == "not known: coal"
    assert {model.version for model in live.stats.by_model} == {"0a1b2c3d4e5f", "older"}


@pytest.mark.parametrize(
    ("policy", "notes", "of_area", "of_rooms"),
    [
        ("off", ["No feature is stored of these rows"], "None of these rows holds it", "None of"),
        ("hash", [], "Its values are hashed in the log", "Its values are hashed in the log"),
        ("area", [], "Its values are hashed in the log", "The model's reference.json does not"),
    ],
)
def test_features_that_are_not_stored_are_told_of(policy, notes, of_area, of_rooms, opened):
    client = opened(prediction_log_features=policy, prediction_log_key="k" * 16)
    client.post("/predict", json=[FLAT] * 3)

    live = client.get("/monitor").json["live"]

    told = {each["name"]: each["note"] for each in live["columns"]}
    assert told["area"].startswith(of_area)
    assert told["rooms"].startswith(of_rooms)
    assert [note[: len(notes[0])] for note in live["notes"][1:]] == notes
    page = client.get("/monitor", headers=BROWSER).text
    assert of_area in page
    assert "hash:" not in page


def test_predictions_by_hour_follow_the_ids_and_cost_no_reading(tmp_path):
    path = tmp_path / "log.db"
    write_log(path, 6_000)
    now = datetime.now(UTC).replace(minute=30)
    ages_h = [30] * 1000 + [23] * 2000 + [5] * 2500 + [0] * 500
    with closing(sqlite3.connect(path)) as database:
        ids = [row_id for (row_id,) in database.execute("SELECT id FROM predictions ORDER BY seq")]
        for place, (row_id, age) in enumerate(zip(ids, ages_h, strict=True)):
            moment = now - timedelta(hours=age, milliseconds=len(ids) - place)
            changes = (first_id(moment.timestamp()) + row_id[13:], f"{moment:%FT%H:%M:%S.000Z}")
            database.execute("UPDATE predictions SET id=?, time=? WHERE id=?", (*changes, row_id))
        database.commit()

    live = look(path, known())

    counts = [hour.n_predictions for hour in live.hours]
    assert {24 - place: n for place, n in enumerate(counts, 1) if n} == {23: 2000, 5: 2500, 0: 500}
    assert (live.n_last_day, live.stats.n_predictions) == (5_000, N_ROWS)
    assert live.first == min(model.first for model in live.stats.by_model)


def test_fewer_rows_are_read_where_there_are_many_features():
    wide = [{"name": f"f{n}", "kind": "numeric", "range": [0, 1]} for n in range(1000)]

    assert n_rows_read(CONTRACT) == N_ROWS
    assert n_rows_read(Contract.model_validate(changed(PLAIN, {"features": wide}))) == 500


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("off", "PREDICTION_LOG is off: nothing is logged"),
        ("none.db", "No prediction has been logged yet"),
        ("folder", "does not exist, or is no file"),
        ("text.db", "Name another path"),
    ],
)
def test_log_that_cannot_be_shown_is_told_in_a_sentence(log, told, opened, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("no database, but long enough to be taken for one\n" * 99)
    client = opened(prediction_log=log if log == "off" else str(tmp_path / log))

    shown = client.get("/monitor").json

    assert shown["live"] is None
    assert told in shown["live_problem"]
    assert told in client.get("/monitor", headers=BROWSER).text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "There is no report yet. Make one: python -m ops.monitor"),
        ("{", "is no report of this release"),
        ('{"format": 2}', "is no report of this release"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_report_that_cannot_be_shown_is_told_in_a_sentence(text, told, opened, tmp_path):
    if text is not None:
        (tmp_path / "monitor.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    client = opened()

    shown = client.get("/monitor").json

    assert shown["report"] is None
    assert told in shown["report_problem"]
    assert told in client.get("/monitor", headers=BROWSER).text


def test_report_is_shown_with_what_it_found(opened, tmp_path):
    report = make_report(AREA, notes=["A note on <b>this</b>."])
    (tmp_path / "monitor.json").write_text(report.model_dump_json())
    client = opened()

    assert client.get("/monitor").json["report"] == json.loads(report.model_dump_json())
    page = client.get("/monitor", headers=BROWSER).text
    for told in ("Drifted", "mean 70 -&gt; 95", "A note on &lt;b&gt;", "is about model", "1.25"):
        assert told in page


def test_reference_of_another_version_is_not_taken_for_that_in_service(
    tmp_path, flats, trained_once
):
    folder = tmp_path / "final"
    shutil.copytree(flats, folder)
    app = create_app(Settings(model_folder=folder, prediction_log=str(tmp_path / "log.db")))
    client = app.test_client()
    client.post("/predict", json=FLAT)
    shutil.rmtree(folder)
    shutil.copytree(trained_once.root / FINAL, folder)

    live = client.get("/monitor").json["live"]

    assert "training rows are shown once both are the same" in live["notes"][0]
    assert live["columns"][0]["then"] is None
    app.extensions["serve"].close()


def test_reloading_does_not_read_the_log_again_for_some_seconds(opened):
    client = opened()
    client.post("/predict", json=FLAT)
    first = client.get("/monitor").json
    client.post("/predict", json=FLAT)

    assert client.get("/monitor").json == first


def test_what_is_kept_is_made_by_one_thread_and_the_others_take_the_old():
    made = []

    def make() -> int:
        made.append(1)
        time.sleep(0.2)
        return len(made)

    kept = Kept(make, for_s=0.05)
    found: list[int] = []
    for n_made in (1, 2):
        began = time.monotonic()
        threads = [threading.Thread(target=lambda: found.append(kept.get())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == n_made
        assert time.monotonic() - began < 0.4
        time.sleep(0.1)

    assert sorted(found) == [1] * 15 + [2]
