"""A server with a database: what it answers is there within a second, and never waits for it."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from contract.artifact import read_manifest
from contract.predictions.migration import migrate
from contract.predictions.settings import DatabaseAddress
from tests.example import ROOT
from tests.postgres import FreshDatabase
from tests.serve.servers import Server, running
from tests.serve.test_predict import FLAT

SOON_S = 1.0  # in which an answer is in the database
LONG_S = 10.0


@pytest.fixture
def server(postgres, flats, tmp_path) -> Iterator[Server]:
    """A server that delivers to a database with its tables and view."""
    migrate(DatabaseAddress(postgres.url), read_manifest(flats).contract)
    with running(flats, tmp_path, DATABASE_URL=postgres.url) as started:
        wait_until(lambda: started.ask_json("/predict", FLAT)[0] == 200)
        wait_until(lambda: n_rows(postgres) == 1)  # the shipper is up
        yield started


def n_rows(database: FreshDatabase) -> int:
    return database.execute("SELECT count(*) FROM predictions")[0][0]


def wait_until(holds: Callable[[], bool], longest_s: float = LONG_S) -> None:
    give_up = time.monotonic() + longest_s
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def metric(server: Server, name: str) -> float:
    lines = server.ask("/metrics")[2].decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def multipart(content: str) -> tuple[bytes, dict[str, str]]:
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    return f"{head}{content}\r\n--x--\r\n".encode(), {
        "Content-Type": "multipart/form-data; boundary=x"
    }


def test_predictions_by_all_ways_are_in_the_typed_view_within_a_second(server, postgres):
    csv = ",".join(FLAT) + "\n" + ",".join(map(str, FLAT.values())) + "\n"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.ask_json("/predict", FLAT)[0] == 200
    assert server.ask("/predict", urlencode(FLAT).encode(), form)[0] == 200
    assert server.ask("/batch_predict", *multipart(csv))[0] == 200

    wait_until(lambda: n_rows(postgres) == 4, SOON_S)

    names = ", ".join(FLAT)
    rows = postgres.execute(f"SELECT source, {names} FROM predictions_typed ORDER BY time")
    assert [source for source, *_ in rows] == ["api", "api", "form", "batch"]
    assert [row[1:] for row in rows] == [tuple(FLAT.values())] * 4


def test_answers_and_readiness_do_not_depend_on_the_database(server, postgres):
    postgres.server.stop()

    statuses = [server.ask_json("/predict", FLAT)[0] for _ in range(5)]
    status, _, body = server.ask("/ready")
    told = json.loads(body)

    assert statuses == [200] * 5
    assert (status, told["ready"], told["undelivered"]["rows"]) == (200, True, 5)
    assert metric(server, "prediction_log_undelivered_rows") == 5
    assert metric(server, "prediction_log_oldest_undelivered_seconds") > 0
    postgres.server.start()
    wait_until(lambda: n_rows(postgres) == 6)
    wait_until(lambda: metric(server, "prediction_log_undelivered_rows") == 0)


def test_frozen_database_holds_up_no_answer(server, postgres):
    postgres.server.freeze()

    times_s = []
    for _ in range(20):
        began = time.monotonic()
        assert server.ask_json("/predict", FLAT)[0] == 200
        times_s.append(time.monotonic() - began)
    postgres.server.thaw()

    assert max(times_s) < 0.5
    wait_until(lambda: n_rows(postgres) == 21)


def test_what_is_rejected_and_which_contract_counted_are_there_too(server, postgres, flats):
    assert server.ask_json("/predict", FLAT | {"area": 9999})[0] == 422

    query = "SELECT source, field, rule, count FROM prediction_rejections"
    wait_until(lambda: postgres.execute(query) == [("api", "area", "out_of_range", 1)])
    manifest = read_manifest(flats)
    told = postgres.execute("SELECT version, contract FROM prediction_models")
    assert told == [(manifest.version, manifest.contract.model_dump(mode="json"))]


def test_server_without_tables_and_rights_goes_on_and_says_what_to_do(postgres, flats, tmp_path):
    postgres.execute("CREATE ROLE small LOGIN PASSWORD 'small'")
    url = postgres.url_of("small", "small")
    try:
        with running(flats, tmp_path, DATABASE_URL=url) as server:
            assert server.ask_json("/predict", FLAT)[0] == 200
            wait_until(lambda: "python -m ops.predictions migrate" in server.output.read_text())
            assert server.ask("/ready")[0] == 200
            migrate(DatabaseAddress(postgres.url), None, grant_to="small")
            wait_until(lambda: n_rows(postgres) == 1)
    finally:
        postgres.execute("DROP OWNED BY small")
        postgres.execute("DROP ROLE small")


def test_queries_of_the_guide_run(server, postgres):
    guide = Path(ROOT, "docs/prediction-log.md").read_text("utf-8")
    queries = [each for each in re.findall(r"```sql\n(.*?)```", guide, re.DOTALL) if "FROM" in each]

    assert len(queries) == 5
    for query in queries:
        postgres.execute(query)


def test_connections_that_the_database_drops_are_made_anew(server, postgres):
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    assert server.ask_json("/predict", FLAT)[0] == 200
    wait_until(lambda: n_rows(postgres) == 2)


def test_stopped_server_delivers_what_is_left(postgres, flats, tmp_path):
    migrate(DatabaseAddress(postgres.url), None)
    with running(flats, tmp_path, DATABASE_URL=postgres.url) as server:
        assert server.ask_json("/predict", [FLAT] * 500)[0] == 200

    assert n_rows(postgres) == 500
