"""What operators and programs ask: health, readiness, metrics, the card, the description."""

import json
import math
import time

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serve.app import create_app
from serve.settings import Settings
from tests.serve.models import write_model
from tests.serve.servers import running
from tests.serve.test_predict import BROWSER, FLAT


def samples(text: str) -> dict[tuple, float]:
    """Give each sample by its name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_health_and_readiness_are_told(client, app):
    assert client.get("/health").json == {"status": "ok"}
    ready = client.get("/ready")
    version = app.extensions["serve"].serving.current.version
    assert ready.json == {"ready": True, "model": version, "problem": None}


def test_refused_artifact_is_told_by_readiness_and_metrics(tmp_path):
    write_model(tmp_path / "final", seed=1)
    app = create_app(Settings(model_folder=tmp_path / "final", prediction_log="off"))
    client, serving = app.test_client(), app.extensions["serve"].serving
    new = write_model(tmp_path / "final", seed=2)
    model = next((tmp_path / "final").glob("*.onnx"))
    content = model.read_bytes()

    model.write_bytes(content[:-1])
    serving.look()
    assert client.get("/ready").status_code == 200  # the old one serves
    assert "SHA-256" in client.get("/ready").json["problem"]
    assert samples(client.get("/metrics").text)[("model_refused",)] == 1

    model.write_bytes(content)
    serving._look_again_s = 0
    serving.look()
    assert client.get("/ready").json == {"ready": True, "model": new, "problem": None}
    told = samples(client.get("/metrics").text)
    assert told[("model_refused",)] == 0
    assert told["model_in_service", ("version", new)] == 1


def test_each_worker_lets_a_request_pass_and_opens_the_log_before_anybody_asks(flats, tmp_path):
    with running(flats, tmp_path, WORKERS="1", LOG_LEVEL="INFO") as server:

        def routes() -> list[tuple[str, str | None]]:
            lines = map(json.loads, server.output.read_text().splitlines())
            return [(line["route"], line["client"]) for line in lines if "route" in line]

        give_up = time.monotonic() + 10
        while not (server.log_path.exists() and routes()):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert routes()[0] == ("/health", None)  # ours, who wait until it is up, have an address


def test_worker_that_cannot_warm_up_serves_all_the_same(flats, tmp_path):
    hosts = "::1,127.0.0.1"  # the first of which is no part of an address to ask
    with running(flats, tmp_path, TRUSTED_HOSTS=hosts, WORKERS="1") as server:
        assert server.ask_json("/predict", FLAT)[0] == 200

    assert "a worker could not warm up" in server.output.read_text()


@pytest.mark.parametrize(("n_proxies", "client_told"), [(0, "127.0.0.1"), (1, "203.0.113.9")])
def test_address_that_a_proxy_tells_counts_once_the_proxy_is_trusted(
    n_proxies, client_told, flats, caplog
):
    settings = Settings(model_folder=flats, prediction_log="off", trusted_proxies=n_proxies)
    client = create_app(settings).test_client()

    with caplog.at_level("INFO"):
        client.get("/health", headers={"X-Forwarded-For": "203.0.113.9"})

    assert [record.facts["client"] for record in caplog.records] == [client_told]


def test_server_whose_log_cannot_be_written_is_not_ready_until_it_can(app, client, tmp_path):
    (tmp_path / "log.db").mkdir()  # in the way

    assert client.post("/predict", json=FLAT).status_code == 503
    unready = client.get("/ready")
    assert (unready.status_code, unready.json["ready"]) == (503, False)
    assert unready.json["problem"] == "The prediction log cannot be written."

    (tmp_path / "log.db").rmdir()
    assert client.get("/ready").status_code == 200
    assert client.post("/predict", json=FLAT).status_code == 200


@pytest.mark.parametrize("worker", ["that has answered nothing", "that has answered"])
def test_each_worker_finds_out_that_the_log_cannot_be_written(worker, app, client, tmp_path):
    log = app.extensions["serve"].log
    if worker == "that has answered":
        assert client.post("/predict", json=FLAT).status_code == 200
        log._written_s -= 2
        for file in tmp_path.glob("log.db*"):
            file.unlink()
    (tmp_path / "log.db").write_bytes(b"a file of another program" * 99)

    unready = client.get("/ready")

    assert (unready.status_code, unready.json["ready"]) == (503, False)


def test_metrics_tell_of_files_that_were_set_aside(client, tmp_path):
    for n_asked in (0, 1):
        told = samples(client.get("/metrics").text)
        assert told[("prediction_log_files_set_aside",)] == n_asked
        assert client.post("/predict", json=FLAT).status_code == 200
        (tmp_path / "log.db-wal").unlink()
        assert client.post("/predict", json=FLAT).status_code == 200


def test_lag_that_cannot_be_known_is_told_as_such(opened, tmp_path):
    url = "postgresql://writer:secret@127.0.0.1:1/flats"
    client = opened(database_url=url)
    assert client.post("/predict", json=FLAT).status_code == 200
    assert client.get("/ready").json["undelivered"]["rows"] == 2
    (tmp_path / "log.db").unlink()

    lag = samples(client.get("/metrics").text)

    assert math.isnan(lag[("prediction_log_undelivered_rows",)])
    assert math.isnan(lag[("prediction_log_oldest_undelivered_seconds",)])


def test_server_says_at_its_start_what_is_wrong_with_the_log(flats, tmp_path):
    (tmp_path / "log.db").write_bytes(b"a file of another program" * 99)
    app = create_app(Settings(model_folder=flats, prediction_log=str(tmp_path / "log.db")))

    app.extensions["serve"].start()
    began_s = time.monotonic()
    while app.extensions["serve"].log._outage is None:
        assert time.monotonic() < began_s + 10
    app.extensions["serve"].close()


def test_model_is_told_as_json_and_shown_as_a_page(client):
    card = client.get("/model")
    page = client.get("/model", headers=BROWSER)

    assert card.json["contract"]["target"]["name"] == "rent"
    assert card.json["metrics"]["r2_score"] == 0.9
    assert page.mimetype == "text/html"
    assert "EUR/month" in page.text
    assert "between 0.850 and 0.930" in page.text


def test_page_that_is_not_there_is_told_in_the_clients_way(client):
    assert "error" in client.get("/nowhere").json
    page = client.get("/nowhere", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (404, "text/html")


def test_description_follows_the_contract(client):
    row = client.get("/openapi.json").json["components"]["schemas"]["Row"]

    assert row["required"] == list(FLAT)
    assert row["properties"]["rooms"]["type"] == "integer"
    assert (row["properties"]["area"]["minimum"], row["properties"]["area"]["maximum"]) == (8, 500)
    assert row["properties"]["heating"]["enum"] == ["gas", "district", "electric"]
    assert client.post("/predict", json=row["examples"][0]).status_code == 200


def test_example_table_fits_the_contract(client):
    table = client.get("/example.csv").data

    answer = client.post("/batch_predict", data=table, content_type="text/csv")

    assert answer.status_code == 200
    assert answer.data.count(b"\n") == table.count(b"\n") == 4


def test_metrics_are_summed_over_all_workers(flats, tmp_path):
    with running(flats, tmp_path, WORKERS="2") as server:
        for _ in range(30):
            assert server.ask_json("/predict", FLAT)[0] == 200
        for _ in range(3):
            assert server.ask_json("/predict", FLAT | {"rooms": "x"})[0] == 422
        deadline = time.monotonic() + 10
        found = {}
        while time.monotonic() < deadline and n_workers_ready(found) < 2:
            found = samples(server.ask("/metrics")[2].decode())

    assert found["predicted_rows_total", ("source", "api")] == 30
    assert found["rejected_values_total", ("rule", "wrong_type"), ("source", "api")] == 3
    answered = ("requests_total", ("method", "POST"), ("route", "/predict"))
    assert found[(*answered, ("status", "200"))] == 30
    assert found[(*answered, ("status", "422"))] == 3
    assert n_workers_ready(found) == 2
    assert found["request_seconds_count", ("route", "/predict")] == 33


def n_workers_ready(found: dict[tuple, float]) -> float:
    return sum(value for name, value in found.items() if name[0] == "model_in_service")


def test_logs_of_the_server_are_json_lines_with_the_request_id(flats, tmp_path):
    with running(flats, tmp_path) as server:
        _, headers, _ = server.ask("/health")

    lines = [json.loads(line) for line in server.output.read_text("utf-8").splitlines()]
    assert headers["X-Request-ID"] in {line.get("request_id") for line in lines}
    assert all({"time", "level", "message"} <= line.keys() for line in lines)


N_REQUESTS = 60  # of each operation; `make bench` sends 50,000


def test_no_generated_request_gets_an_answer_outside_the_description(app):
    description = schemathesis.openapi.from_wsgi("/openapi.json", app)

    for found in description.get_all_operations():
        operation = found.ok()
        modes = st.sampled_from(list(schemathesis.GenerationMode))
        cases = modes.flatmap(lambda mode, each=operation: each.as_strategy(generation_mode=mode))

        @settings(max_examples=N_REQUESTS, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=cases)
        def ask(case: schemathesis.Case) -> None:
            # no schema can say which text is a table of the right columns
            excluded = [positive_data_acceptance] if case.path == "/batch_predict" else []
            case.call_and_validate(excluded_checks=excluded)

        ask()
