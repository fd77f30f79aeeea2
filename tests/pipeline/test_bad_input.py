"""Bad input through `dvc repro`: a clear message, no success, and the model stays as it was."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Project

SAMPLE = "data/sample/students.csv"


@pytest.fixture(scope="module")
def project(trained_once, tmp_path_factory) -> Project:
    """One project for all bad inputs, as none of them may change more than the source."""
    return trained_once.copy(tmp_path_factory.mktemp("bad") / "project")


@pytest.fixture
def rows(project) -> pd.DataFrame:
    """The sample's rows, all cells as text."""
    return pd.read_csv(project.root / SAMPLE, dtype=str, keep_default_na=False)


@pytest.fixture
def served(tmp_path) -> Iterator[str]:
    """The address of an HTTP server that serves `tmp_path`."""
    handler = partial(SilentHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def refuse(project: Project, source: str, **options) -> str:
    """Run the pipeline on a source that it must refuse; give what it says."""
    model = project.contents("models/final")
    project.set_params({"data.source": source})

    done = project.dvc("repro", "split", check=False, **options)

    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout
    assert project.contents("models/final") == model
    return done.stdout


def spoil(rows: pd.DataFrame, cells: dict[tuple[int, str], str]) -> str:
    """Give the table as CSV with cells changed, by line of the file and column."""
    for (line, column), value in cells.items():
        rows.loc[line - 2, column] = value
    return rows.to_csv(index=False)


BROKEN: dict[str, tuple[Callable[[pd.DataFrame], str], list[str]]] = {
    "an empty file": (lambda rows: "", ["bad.csv is empty, expected a table with a header"]),
    "a header only": (
        lambda rows: rows.head(0).to_csv(index=False),
        ["bad.csv holds a header only, expected rows below it"],
    ),
    "a missing column": (
        lambda rows: rows.drop(columns="lunch").to_csv(index=False),
        ["bad.csv lacks lunch; its columns are gender, race_ethnicity,"],
    ),
    "a doubled column": (
        lambda rows: (
            rows.assign(again=rows["lunch"]).rename(columns={"again": "lunch"}).to_csv(index=False)
        ),
        ["bad.csv holds lunch twice, expected each column once"],
    ),
    "text in a number column": (
        lambda rows: spoil(rows, {(7, "reading_score"): "many"}),
        ["bad.csv: 1 values break the contract", "7 reading_score  many a number"],
    ),
    "a number out of range, an unknown category and a blank cell at once": (
        lambda rows: spoil(
            rows, {(3, "math_score"): "150", (4, "lunch"): "brunch", (5, "gender"): ""}
        ),
        [
            "bad.csv: 3 values break the contract",
            "3 math_score    150",
            "0 to 100 points",
            "4      lunch brunch",
            "one of free/reduced, standard",
            "5     gender",
            "may not be empty",
        ],
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_csv_is_refused_with_its_fault_named_that_has(what, project, rows):
    make, messages = BROKEN[what]
    (project.root / "data/bad.csv").write_text(make(rows), "utf-8")

    said = refuse(project, "data/bad.csv")

    for message in messages:
        assert message in said


def test_missing_file_is_named(project):
    said = refuse(project, "data/none.csv")

    assert re.search(r"No such file or directory: '.*data/none.csv'", said)  # DVC's own words


def test_latin_1_bytes_are_refused_with_their_line_and_the_param_to_set(project, rows):
    rows = rows.assign(school=["Zürich", *["Bern"] * (len(rows) - 1)])
    path = project.root / "data/latin.csv"
    path.write_bytes(rows.to_csv(index=False).encode("latin-1"))

    said = refuse(project, "data/latin.csv")

    assert "data/latin.csv, line 2: byte 0xfc is not utf-8. Set data.encoding" in said


def test_xlsx_of_two_lines_is_refused_as_too_few_rows(project, rows):
    rows.head(1).to_excel(project.root / "data/short.xlsx", index=False)

    said = refuse(project, "data/short.xlsx")

    assert "1 rows give 1 to train and 0 to test, expected 10 and 2 or more" in said


def test_parquet_with_other_types_is_refused_by_value(project, rows):
    rows["math_score"] = pd.Timestamp("2026-01-01")
    rows["gender"] = rows["gender"] == "male"
    rows.head(10).to_parquet(project.root / "data/types.parquet")

    said = refuse(project, "data/types.parquet")

    assert "data/types.parquet: 20 values break the contract" in said
    assert "one of female, male" in said


def test_address_that_answers_404_is_named(project, served):
    said = refuse(project, f"{served}/none.csv")

    assert "none.csv" in said
    assert "does not exist" in said


def test_good_source_goes_on_as_if_nothing_had_been(project, trained_once):
    project.set_params({"data.source": SAMPLE})

    project.dvc("repro")

    made = ("dvc.lock", "metrics", "models/final")
    assert project.contents(*made) == trained_once.contents(*made)


def test_source_at_an_address_is_read_and_a_change_there_runs_ingest_again(
    trained, rows, served, tmp_path
):
    rows.to_csv(tmp_path / "students.csv", index=False)
    trained.set_params({"data.source": f"{served}/students.csv"})

    assert trained.repro("ingest") == ["ingest"]
    assert trained.repro("ingest") == []
    rows.head(500).to_csv(tmp_path / "students.csv", index=False)
    assert trained.repro("ingest") == ["ingest"]
    assert json.loads(trained.read("metrics/ingest.json"))["n_rows"] == 500


def test_source_in_s3_is_read_and_a_change_there_runs_ingest_again(trained, rows, s3):
    trained.set_params({"data.source": "s3://tables/students.csv"})
    environment = {"AWS_ENDPOINT_URL": s3}
    put(f"{s3}/tables")

    put(f"{s3}/tables/students.csv", rows.to_csv(index=False))
    assert trained.repro("ingest", env=environment) == ["ingest"]
    assert trained.repro("ingest", env=environment) == []
    put(f"{s3}/tables/students.csv", rows.head(500).to_csv(index=False))
    assert trained.repro("ingest", env=environment) == ["ingest"]
    assert json.loads(trained.read("metrics/ingest.json"))["n_rows"] == 500


def put(address: str, content: str = "") -> None:
    """Make a bucket, or an object in one, as the owner of the test's credentials."""
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request",
        "Content-Type": "text/csv",
    }
    request = urllib.request.Request(address, content.encode(), headers, method="PUT")
    urllib.request.urlopen(request).close()


@pytest.fixture
def s3(tmp_path) -> Iterator[str]:
    """The address of a server that speaks S3."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    server = Path(sys.executable).with_name("moto_server")
    with (tmp_path / "moto.log").open("w") as log:
        process = subprocess.Popen([server, "--port", str(port)], stdout=log, stderr=log)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"no server answers at port {port}")


@pytest.mark.parametrize(
    ("stage", "n_bytes", "changes"),
    [
        ("ingest", 4096, {"data.missing": ["gap"]}),
        ("export", 3072, {"export.tolerance": 0.02}),
    ],
)
def test_full_disk_stops_the_stage_and_the_next_repro_recovers(trained, stage, n_bytes, changes):
    model = trained.contents("models/final")
    trained.set_params(changes)

    full = trained.dvc("repro", check=False, env={"SHELL": small_disk(trained, n_bytes)})

    assert full.returncode != 0
    assert f"failed to reproduce '{stage}'" in full.stdout
    assert "File too large" in full.stdout
    assert "Traceback" not in full.stdout
    assert trained.contents("models/final") == model
    assert trained.repro()[0] == stage
    assert trained.contents("models/final") == model


def small_disk(project: Project, n_bytes: int) -> str:
    """Make a shell for DVC to start stages with, in which no file may grow beyond n_bytes."""
    shell = project.root.parent / "small_disk"
    shell.write_text(f'#!/bin/sh\nulimit -f {n_bytes // 512}\nexec /bin/sh "$@"\n')
    shell.chmod(0o755)
    return str(shell)
