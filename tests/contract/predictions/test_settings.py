"""Where the log is and where it is delivered, from the environment; no secret is repeated."""

import pytest

from contract.predictions.settings import DatabaseAddress, LogSettings
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


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:secret@h:5433/marks", "h:5433/marks"),
        ("postgresql://me:secret@DB.Example.com/marks", "db.example.com:5432/marks"),
        ("postgresql://me:secret@h/my%20marks", "h:5432/my%20marks"),
        ("postgresql://me:secret@[::1]:5433/marks", "::1:5433/marks"),
        ("postgresql://me:secret@h/marks?sslmode=verify-full&connect_timeout=3", "h:5432/marks"),
        ("postgresql://me:secret@h/marks?options=-cstatement_timeout%3D9", "h:5432/marks"),
        ("postgresql://me:secret@h/marks?host=other", "other:5432/marks"),
        ("postgresql:///marks?host=/run/PostgreSQL", "/run/PostgreSQL:5432/marks"),
        ("postgresql://me:secret@h/marks?port=5434", "h:5434/marks"),
        ("postgresql://me:secret@h/marks?dbname=others", "h:5432/others"),
        ("postgresql://me:secret@h", "h:5432/me"),
        ("postgresql://me:secret@h/marks?hostaddr=10.0.0.1", "h:5432/marks?hostaddr=10.0.0.1"),
        ("postgresql://me:secret@h/marks?service=rents", "h:5432/marks?service=rents"),
        (
            "postgresql://me:secret@h/m?options=-csearch_path%3Drents,public",
            "h:5432/m?search_path=rents%2Cpublic",
        ),
        (
            "postgresql://h/m?options=--search-path%3Da%20-c%20search_path%3Db",
            "h:5432/m?search_path=b",
        ),
        ("postgresql://me:secret@h/marks?color=red", "h:5432/marks"),
        ("postgresql://me:half@secret@h/marks", "h:5432/marks"),
    ],
)
def test_name_tells_apart_what_libpq_would(url, name):
    assert DatabaseAddress(url).name == name


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("PGPORT", "5433", "h:5433/me"),
        ("PGDATABASE", "marks", "h:5432/marks"),
        ("PGUSER", "you", "h:5432/me"),
        ("PGOPTIONS", "-c search_path=rents", "h:5432/me?search_path=rents"),
        ("PGSERVICE", "rents", "h:5432/me?service=rents"),
        ("PGHOST", "other", "h:5432/me"),
    ],
)
def test_name_knows_the_variables_that_libpq_takes(monkeypatch, variable, value, name):
    monkeypatch.setenv(variable, value)

    assert DatabaseAddress("postgresql://me:secret@h").name == name


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
