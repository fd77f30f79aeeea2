"""Where the log is and where it is delivered, from the environment; no secret is repeated."""

import pytest

from contract.predictions.settings import LogSettings
from contract.settings import SettingsError, read_settings

FIVE = {
    "DB_ENDPOINT": "rds.example.com",
    "DB_PORT": "5433",
    "DB_NAME": "marks",
    "DB_USER": "writer",
    "DB_PASSWORD": "p@ss/w:rd",
}


def settings_of(monkeypatch, tmp_path, **variables: str) -> LogSettings:
    monkeypatch.chdir(tmp_path)  # where there is no .env
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return read_settings(LogSettings)


def test_no_database_unless_one_is_named(monkeypatch, tmp_path):
    assert settings_of(monkeypatch, tmp_path).database is None


def test_five_variables_name_a_database_as_a_url_does(monkeypatch, tmp_path):
    database = settings_of(monkeypatch, tmp_path, **FIVE).database

    assert database.url == "postgresql://writer:p%40ss%2Fw%3Ard@rds.example.com:5433/marks"
    assert database.name == "rds.example.com:5433/marks"
    assert "p%40ss" not in repr(database)


def test_url_wins_over_the_five_variables(monkeypatch, tmp_path):
    url = "postgres://reader:secret@localhost/other?sslmode=require"

    database = settings_of(monkeypatch, tmp_path, **FIVE, DATABASE_URL=url).database

    assert (database.url, database.name) == (url, "localhost:5432/other")


def test_missing_part_of_the_five_is_named(monkeypatch, tmp_path):
    with pytest.raises(SettingsError, match="DB_NAME and DB_USER missing"):
        settings_of(monkeypatch, tmp_path, DB_ENDPOINT="rds.example.com")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:secret@h/x",
        "me:secret@h",
        "postgresql://",
        "postgresql://me:secret@h:port/x",
        "postgresql://me:1/secret@h/x",
    ],
)
def test_url_that_is_none_is_told_without_its_password(url, monkeypatch, tmp_path):
    with pytest.raises(SettingsError, match=r"DATABASE_URL .* expected postgresql://") as caught:
        settings_of(monkeypatch, tmp_path, DATABASE_URL=url)

    assert "secret" not in str(caught.value)


def test_database_without_a_local_log_is_refused(monkeypatch, tmp_path):
    with pytest.raises(SettingsError, match="PREDICTION_LOG is off, expected a path"):
        settings_of(monkeypatch, tmp_path, **FIVE, PREDICTION_LOG="off")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PREDICTION_LOG_KEEP_DAYS", "-1"), ("DB_PORT", "many"), ("PREDICTION_LOG_SYNC", "maybe")],
)
def test_wrong_value_is_told_by_its_name(name, value, monkeypatch, tmp_path):
    with pytest.raises(SettingsError, match=f"{name} is '{value}'"):
        settings_of(monkeypatch, tmp_path, **{name: value})
