"""Servers for tests that only ask, and apps for those that need no process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from serve.app import create_app
from serve.settings import Settings
from tests.serve.models import write_model
from tests.serve.servers import Server, running


@pytest.fixture(scope="session")
def flats(tmp_path_factory) -> Path:
    """A folder with a model of rents; nobody may change it."""
    folder = tmp_path_factory.mktemp("flats") / "final"
    write_model(folder)
    return folder


@pytest.fixture(scope="session")
def server(trained_once, tmp_path_factory) -> Iterator[Server]:
    """A real server of the shipped problem, for all tests that leave it as it is."""
    folder = trained_once.root / "models/final"
    with running(folder, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def app(flats, tmp_path) -> Iterator[Flask]:
    """The app of the flats' model, without a server round it."""
    made = create_app(
        Settings(model_folder=flats, prediction_log=str(tmp_path / "log.db"), max_json_rows=100)
    )
    yield made
    made.extensions["serve"].close()


@pytest.fixture
def client(app) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def opened(flats, tmp_path) -> Iterator[Callable[..., FlaskClient]]:
    """Make clients of apps with settings of their own."""
    apps = []

    def make(**changes) -> FlaskClient:
        files = {
            "prediction_log": str(tmp_path / "log.db"),
            "monitor_report": str(tmp_path / "monitor.json"),
        }
        apps.append(create_app(Settings.model_validate({"model_folder": flats} | files | changes)))
        return apps[-1].test_client()

    yield make
    for app in apps:
        app.extensions["serve"].close()
