"""TLS to the database: what verify-full lets through, and what is told of all that it does not."""

import re
import time
from contextlib import closing
from pathlib import Path

import pytest

from contract.predictions.database import Database, DatabaseError
from contract.predictions.settings import DatabaseAddress, LogSettings
from contract.settings import read_settings
from tests.postgres import OWNER, PASSWORD
from tests.tls import Authority, tls_in_front

MODEL = ("0a1b2c3d4e5f", "2026-11-23T10:00:00.123Z", "{}")


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path / "ca.pem")


def url_of(postgres, port: int, ca: Path, mode: str = "verify-full", more: str = "") -> str:
    """Give the address of a front, by the name in its certificate."""
    url = postgres.url.replace(f"127.0.0.1:{postgres.server.port}", f"localhost:{port}")
    return f"{url}?sslmode={mode}&sslrootcert={ca}{more}"


def error_of(url: str) -> str:
    """Say why there is no way in; a person has to act."""
    database = Database(DatabaseAddress(url))
    with closing(database), pytest.raises(DatabaseError) as caught:
        database.expect_tables()
    assert caught.value.is_lasting
    assert PASSWORD not in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_are_delivered_to_a_server_that_is_who_it_says(postgres, authority):
    with tls_in_front(postgres.server.port, authority.sign("localhost")) as front:
        address = DatabaseAddress(url_of(postgres, front.port, authority.path))
        with closing(Database(address)) as database:
            database.expect_tables()
            database.insert("models", [MODEL])

    assert front.versions == ["TLSv1.3"]
    assert postgres.execute("SELECT version FROM prediction_models") == [(MODEL[0],)]


def test_five_variables_are_verified_by_those_of_libpq(postgres, authority, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where there is no .env
    stranger = Authority(tmp_path / "stranger.pem")
    with tls_in_front(postgres.server.port, authority.sign("localhost")) as front:
        given = {"DB_ENDPOINT": "localhost", "DB_PORT": str(front.port), "DB_NAME": postgres.name}
        given |= {"DB_USER": OWNER, "DB_PASSWORD": PASSWORD, "PGSSLMODE": "verify-full"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        address = read_settings(LogSettings).database
        monkeypatch.setenv("PGSSLROOTCERT", str(stranger.path))
        assert "certificate verify failed" in error_of(address.url)
        monkeypatch.setenv("PGSSLROOTCERT", str(authority.path))
        with closing(Database(address)) as database:
            database.expect_tables()

    assert front.versions == ["TLSv1.3"]


def test_certificate_of_another_authority_is_told(postgres, authority, tmp_path):
    stranger = Authority(tmp_path / "stranger.pem")
    with tls_in_front(postgres.server.port, stranger.sign("localhost")) as front:
        told = error_of(url_of(postgres, front.port, authority.path))

    assert re.search(r"certificate verify failed\. No authority in sslrootcert has signed", told)
    assert front.versions == []


def test_certificate_whose_time_is_over_is_told(postgres, authority):
    with tls_in_front(postgres.server.port, authority.sign("localhost", days=-1)) as front:
        told = error_of(url_of(postgres, front.port, authority.path))

    assert re.search(r"certificate verify failed\. .* or its time is over: .* renew it", told)
    assert front.versions == []


def test_certificate_of_another_host_is_told(postgres, authority):
    with tls_in_front(postgres.server.port, authority.sign("db.example.org")) as front:
        told = error_of(url_of(postgres, front.port, authority.path))

    assert 'certificate for "db.example.org" does not match host name "localhost". Name' in told


def test_authority_that_has_no_file_is_told(postgres, authority, tmp_path):
    with tls_in_front(postgres.server.port, authority.sign("localhost")) as front:
        told = error_of(url_of(postgres, front.port, tmp_path / "none.pem"))

    assert re.search(r'root certificate file ".*none\.pem" does not exist\. Correct sslmode', told)


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_server_without_tls_is_told(postgres, authority, mode):
    told = error_of(url_of(postgres, postgres.server.port, authority.path, mode))

    assert "server does not support SSL, but SSL was required. Correct sslmode" in told


def test_reason_is_that_of_the_address_which_answered(postgres, authority, tmp_path):
    """A name has several addresses, of which the first may be one that nobody listens on."""
    stranger = Authority(tmp_path / "stranger.pem")
    with tls_in_front(postgres.server.port, stranger.sign("localhost")) as front:
        two = "&host=localhost,localhost&hostaddr=127.0.0.2,127.0.0.1"
        told = error_of(url_of(postgres, front.port, authority.path, more=two))

    assert re.search(r"certificate verify failed\. No authority", told)
    assert "refused" not in told


def test_server_that_freezes_behind_tls_holds_nobody(postgres, authority):
    with tls_in_front(postgres.server.port, authority.sign("localhost")) as front:
        address = DatabaseAddress(url_of(postgres, front.port, authority.path))
        with closing(Database(address, patience_s=0.5)) as database:
            database.expect_tables()
            postgres.server.freeze()
            for attempt in (database.insert, database.insert):  # connected, and connecting anew
                began_s = time.monotonic()
                with pytest.raises(DatabaseError, match=r"has not answered for 0\.[45]") as caught:
                    attempt("models", [MODEL])
                assert time.monotonic() - began_s < 1.5
                assert not caught.value.is_lasting
            postgres.server.thaw()
            database.insert("models", [MODEL])

    assert postgres.execute("SELECT count(*) FROM prediction_models") == [(1,)]
