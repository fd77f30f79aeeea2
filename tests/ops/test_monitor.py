"""The monitor tells drift from calm, says what it cannot measure, and its page needs no network."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contract.artifact import FINAL, Model, Predictions, load_model, load_train_profile
from contract.encoding import encode
from contract.features import PREDICTION, Contract
from contract.monitoring import Report, read_report
from contract.predictions.file import connect
from contract.predictions.log import PredictionLog
from contract.predictions.privacy import Privacy
from contract.predictions.read import FileReader
from contract.predictions.settings import LogSettings
from contract.profiler import axes_of, make_profile
from ops.monitor.__main__ import main
from ops.monitor.inputs import gather
from ops.simulate import simulate
from tests.logged import deliver

N_ENOUGH = 600
KEY = "sixteen letters!"
SEED = 11


@dataclass(frozen=True)
class Told:
    """How the monitor ended, and what it said."""

    code: int
    out: str
    err: str
    report: Report | None


@pytest.fixture
def site(trained_once, tmp_path, monkeypatch) -> Path:
    """Stand in a trained project, with a log elsewhere; give the log's path."""
    monkeypatch.chdir(trained_once.root)
    for name in LogSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PREDICTION_LOG", str(tmp_path / "log.db"))
    return tmp_path / "log.db"


@pytest.fixture
def model(site) -> Model:
    return load_model()


@pytest.fixture
def monitor(site, capsys) -> Callable[..., Told]:
    def run(*arguments: object) -> Told:
        report = site.with_name("report.json")
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--report", str(report)])
        out, err = capsys.readouterr()
        return Told(ended.value.code, out, err, read_report(report))

    return run


def rows_of(model: Model, n_rows: int = N_ENOUGH) -> pd.DataFrame:
    return simulate(n_rows, SEED)[model.manifest.contract.names()]


def number_of(contract: Contract) -> str:
    return next(each.name for each in contract.features if each.kind == "numeric")


def category_of(contract: Contract) -> str:
    return next(each.name for each in contract.features if each.categories)


def log_rows(
    path: Path,
    model: Model,
    rows: pd.DataFrame,
    told: Predictions | None = None,
    version: str = "",
    contract: Contract | None = None,
    hide: Callable[[dict], dict] = dict,
) -> list[str]:
    """Log rows as a server of the model does; give their ids."""
    told = told or model.predict(encode(rows, model.manifest.contract))
    version = version or model.manifest.version
    features = [json.dumps(hide(row)) for row in json.loads(rows.to_json(orient="records"))]
    with closing(PredictionLog(path)) as log:
        log.describe(version, (contract or model.manifest.contract).model_dump_json())
        about = {"source": "api", "request_id": "r", "latency_ms": 1.0}
        return log.append(features, told, model=version, **about)


def attach(path: Path, ids: Sequence[str], truths: Sequence[float]) -> None:
    rows = [
        (row_id, "2026-11-01T00:00:00Z", float(t)) for row_id, t in zip(ids, truths, strict=True)
    ]
    with closing(connect(path)) as log:
        log.executemany("INSERT INTO truths (id, time, truth) VALUES (?, ?, ?)", rows)


def test_rows_like_those_of_the_training_are_calm(site, model, monitor):
    log_rows(site, model, rows_of(model))

    told = monitor()

    assert (told.code, told.report.status, told.report.n_rows) == (0, "calm", N_ENOUGH)
    assert told.out.startswith(f"calm: {N_ENOUGH} predictions look like")
    assert [seen.n_predictions for seen in told.report.versions] == [N_ENOUGH]
    assert not [found for found in told.report.findings if found.action == "fail"]


def test_shifted_column_is_named_with_its_measure_and_limit(site, model, monitor, tmp_path):
    rows, name = rows_of(model), number_of(model.manifest.contract)
    rows[name] = (rows[name] - 15).clip(0)
    log_rows(site, model, rows)

    told = monitor("--html", tmp_path / "page.html")

    assert (told.code, told.report.status) == (1, "drifted")
    assert f"drifted: {name} has drifted" in told.out
    assert "difference of means" in told.out
    found = told.report.findings[0]
    assert (found.subject, found.action) == (name, "fail")
    assert abs(found.value) > found.limit
    page = (tmp_path / "page.html").read_text("utf-8")
    assert f"{name} has drifted" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_predictions_are_watched_beside_the_features(site, model, monitor):
    rows = rows_of(model)
    told = model.predict(encode(rows, model.manifest.contract))
    low = Predictions(told.prediction - 20, told.lower - 20, told.upper - 20)
    log_rows(site, model, rows, low)

    found = monitor().report

    assert {each.subject for each in found.findings if each.action == "fail"} == {PREDICTION}
    assert found.prediction.mean_now < found.prediction.mean_then - 15


def test_feature_that_is_called_prediction_is_not_taken_for_one(site, model):
    rows, old, new = rows_of(model), number_of(model.manifest.contract), "prediction"
    features = [
        each.model_copy(update={"name": new}) if each.name == old else each
        for each in model.manifest.contract.features
    ]
    contract = model.manifest.contract.model_copy(update={"features": tuple(features)})
    told = model.predict(encode(rows, model.manifest.contract)).prediction
    rows = rows.rename(columns={old: new})
    axes = axes_of(contract)
    axes |= {PREDICTION: axes[contract.target.name]}
    reference = make_profile(
        rows.assign(**{PREDICTION: told, contract.target.name: told}).to_dict("list"), axes
    )
    log_rows(site, model, rows, Predictions(told, told, told), contract=contract)

    found = gather(FileReader(site).batches(), contract, reference, model.manifest.version, {})

    assert found.inputs.columns[new] == reference.columns[new]
    assert found.predictions.columns == {PREDICTION: reference.columns[PREDICTION]}


@pytest.mark.parametrize("n_rows", [1, 100])
def test_few_rows_are_no_judgement(n_rows, site, model, monitor):
    log_rows(site, model, rows_of(model, 100)[:n_rows])

    told = monitor()

    assert told.code == 2
    assert "too few to judge, expected 500" in told.out
    assert told.out.startswith("too_few: 1 prediction is " if n_rows == 1 else "too_few: 100 pred")


def test_empty_log_is_too_few(site, monitor):
    with closing(PredictionLog(site)) as log:
        log.reject("api", {("", "missing"): 2})

    told = monitor()

    assert (told.code, told.report.n_rows, told.report.n_rejected) == (2, 0, 2)


def test_window_is_what_is_asked_for(site, model, monitor):
    log_rows(site, model, rows_of(model))

    assert monitor("--last", 520).report.n_rows == 520
    assert monitor("--since", "2100-01-01").code == 2


def test_missing_log_model_or_profile_is_one_sentence(site, model, monitor, tmp_path):
    assert "there is no prediction log" in monitor().err
    log_rows(site, model, rows_of(model))

    told = monitor("--model", tmp_path / "nowhere")

    assert told.code == 3
    assert told.err.startswith("ERROR: ")
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("argument", ["--since=soon", "--last=0", "--lats=5"])
def test_wrong_argument_is_no_verdict(argument, site, capsys):
    with pytest.raises(SystemExit) as ended:
        main([argument])

    assert ended.value.code == 3
    assert "ERROR: " in capsys.readouterr().err


def test_rows_of_another_contract_count_with_the_columns_that_both_have(site, model, monitor):
    contract = model.manifest.contract
    gone = category_of(contract)
    other = contract.model_copy(
        update={"features": tuple(each for each in contract.features if each.name != gone)}
    )
    rows = rows_of(model)
    told = model.predict(encode(rows, contract))
    hobby = contract.features[0].model_copy(update={"name": "hobby"})
    wider = contract.model_copy(update={"features": (*contract.features, hobby)})
    log_rows(site, model, rows[:550].drop(columns=gone), _part(told, 550), "0123456789ab", other)
    log_rows(site, model, rows[:50].assign(hobby="x"), _part(told, 50), "ba9876543210", wider)
    log_rows(site, model, rows, told)

    ended = monitor()
    found = ended.report

    assert (ended.code, found.n_rows) == (0, N_ENOUGH + 600)

    assert any(f"Model 0123456789ab had other features: {gone}" in note for note in found.notes)
    assert any("Model ba9876543210 had other features: hobby" in note for note in found.notes)
    column = next(each for each in found.columns if each.name == gone)
    assert (column.n_values, column.n_gaps) == (N_ENOUGH + 50, 0)  # it could not have them
    assert {hour.gap_share for hour in found.by_hour} == {0}
    assert len(found.versions) == 3


def test_rows_of_quite_another_contract_are_not_judged(site, model, monitor):
    contract, rows = model.manifest.contract, rows_of(model)
    hobby = contract.features[0].model_copy(update={"name": "hobby"})
    other = contract.model_copy(update={"features": (hobby,)})
    told = model.predict(encode(rows, contract))
    log_rows(site, model, pd.DataFrame({"hobby": ["x"] * N_ENOUGH}), told, "0123456789ab", other)

    ended = monitor()

    assert (ended.code, ended.err, ended.report.n_rows) == (2, "", N_ENOUGH)
    assert "0 predictions are too few to judge" in ended.out
    assert "Model 0123456789ab had other features: " in ended.out


def test_rows_that_share_one_feature_are_not_foreign_whatever_other_rows_lack(site, model):
    contract, rows = model.manifest.contract, rows_of(model, 20)
    _, reference = load_train_profile(FINAL)
    one, two = contract.features[:2]
    told = model.predict(encode(rows, contract))
    for version, kept in (("0123456789ab", one), ("ba9876543210", two)):
        part = contract.model_copy(update={"features": (kept,)})
        log_rows(site, model, rows[[kept.name]], told, version, part)
    asked = contract.model_copy(update={"features": (one, two)})
    reader = FileReader(site)

    found = gather(reader.batches(), asked, reference, model.manifest.version, reader.contracts())

    assert (found.n_rows, found.n_foreign) == (40, 0)


def _part(told: Predictions, n: int) -> Predictions:
    return Predictions(told.prediction[:n], told.lower[:n], told.upper[:n])


@pytest.mark.parametrize("value", [None, 70])
def test_columns_without_values_or_all_of_one_are_told_without_a_traceback(
    value, site, model, monitor
):
    rows, name = rows_of(model), number_of(model.manifest.contract)
    told = model.predict(encode(rows, model.manifest.contract))
    rows[name] = value
    log_rows(site, model, rows, told)

    found = monitor()

    assert (found.code, found.err) == (1, "")
    assert name in found.report.summary


def test_hashed_features_are_not_taken_for_drift(site, model, monitor):
    contract = model.manifest.contract
    names = [category_of(contract), number_of(contract)]
    privacy = Privacy(" ".join(names), KEY, contract)
    log_rows(site, model, rows_of(model), hide=lambda row: dict(privacy.of_row(row)))

    told = monitor()

    assert told.code == 0
    assert f"hashes of {', '.join(sorted(names))}" in told.out


def test_features_that_are_not_stored_are_said(site, model, monitor):
    log_rows(site, model, rows_of(model), hide=lambda row: {})

    told = monitor()

    assert told.code == 0
    assert f"{N_ENOUGH} rows are stored without their features" in told.out


def test_live_error_is_worse_only_if_its_interval_leaves_that_of_the_promise_behind(
    site, model, monitor
):
    rows = simulate(N_ENOUGH, SEED)
    truths = rows[model.manifest.contract.target.name].to_numpy(dtype=float)
    ids = log_rows(site, model, rows[model.manifest.contract.names()])
    attach(site, ids[:300], truths[:300])

    good = monitor()
    attach(site, ids[300:], truths[300:][::-1])  # which belong to other rows
    bad = monitor()

    assert (good.code, good.report.live_error.n_rows) == (0, 300)
    assert not good.report.live_error.is_worse
    assert (bad.code, bad.report.live_error.is_worse) == (1, True)
    assert "was promised" in bad.report.summary


def test_few_truths_are_said(site, model, monitor):
    ids = log_rows(site, model, rows_of(model))
    attach(site, ids[:5], [60.0] * 5)

    told = monitor()

    assert told.report.live_error is None
    assert "5 truths are too few for the live error" in told.out


def test_log_in_postgresql_gives_the_same_report(site, model, monitor, postgres, monkeypatch):
    rows, name = rows_of(model), number_of(model.manifest.contract)
    rows[name] = (rows[name] - 15).clip(0)
    log_rows(site, model, rows)
    local = monitor().report
    deliver(site, postgres.url)
    monkeypatch.setenv("DATABASE_URL", postgres.url)

    there = monitor().report

    same = {"made", "log", "edges"}
    assert there.model_dump(exclude=same) == local.model_dump(exclude=same)
    assert {edge.distance for edge in there.edges} == {edge.distance for edge in local.edges}


def test_values_nearest_to_an_edge_are_told(site, model, monitor):
    rows, name = rows_of(model), number_of(model.manifest.contract)
    feature = next(f for f in model.manifest.contract.features if f.name == name)
    rows[name] = rows[name].clip(30, 70)
    rows.loc[3, name] = feature.range[1]
    log_rows(site, model, rows[[*rows.columns]])

    edges = [edge for edge in monitor().report.edges if edge.column == name]

    assert (edges[0].value, edges[0].end, edges[0].distance) == (*[feature.range[1]] * 2, 0)
    assert np.all(np.diff([edge.distance for edge in edges]) >= 0)
