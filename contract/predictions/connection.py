"""Connections to PostgreSQL on which no wait is without end, and its errors in words.

A frozen server answers nothing, and neither statement_timeout nor keepalives free who waits for
it. So psycopg2 waits here by a function of ours, which closes the connection when patience ends.
"""

import queue
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg2
from psycopg2 import errors, extensions
from psycopg2.extensions import POLL_OK, POLL_READ, parse_dsn, set_wait_callback

from contract.errors import ContractError
from contract.predictions.address import URL_FORM, DatabaseAddress

LONG_S = 86_400.0  # for connections that others have made
BAD_ROW = re.compile("22...|5400[01]")  # SQLSTATE of values, and of limits that they exceed
MIGRATE = "`python -m ops.predictions migrate`"
SET = "in DATABASE_URL or the DB_ variables"
ADVICE = (  # by SQLSTATE and words: whether a person must act, and what to do
    ("^42501|^42P01|^3F000|^42P10", True, f"Run {MIGRATE} with the role that owns the tables."),
    ("^42704", True, "Make it first: CREATE ROLE name LOGIN PASSWORD '...'."),
    ("^42703", True, f"A table of the log is not ours there: {MIGRATE} names it and its columns."),
    ("^2BP01", True, f"Drop what depends on the view, run {MIGRATE}, and make it anew."),
    ("^23", True, "Drop the constraint that refuses these rows, or make the partition they need."),
    ("^25006", False, "It is a replica: name the primary server."),
    ("^57014", False, "It is overloaded, or another holds a lock on the table."),
    ("^53|too many connections|connection slots", False, "Free or give it what it lacks."),
    ("^(42|0A|54|55000)", True, "Rename what is of that name there, or name another database."),
    ("^[0-9A-Z]{5} ", False, "The log of the server says more."),
    ("has not answered", False, "It is overloaded, frozen or cut off: look after it."),
    ("starting up|shutting down|recovery", False, "Wait until it is up."),
    ("permission denied for database", True, "Grant CONNECT on the database to the user."),
    ("database .* does not exist", True, f"Create the database, or correct its name {SET}."),
    (
        "pg_hba.conf",
        True,
        "Let its pg_hba.conf accept this user and host; sslmode=require in the URL if with TLS.",
    ),
    (
        "password|authentication|log in|role .* does not exist",
        True,
        f"Correct user and password {SET}.",
    ),
    (
        "certificate verify failed",
        True,
        "No authority in sslrootcert has signed it, or its time is over: correct sslrootcert in "
        "the URL or PGSSLROOTCERT, or renew it.",
    ),
    ("does not match host name", True, f"Name the host as the certificate does, {SET}."),
    (
        "SSL, but|certificate|SSL error|invalid .* value",
        True,
        "Correct sslmode and sslrootcert in the URL, PGSSLMODE or PGSSLROOTCERT.",
    ),
    ("", False, f"Start the server, correct host and port {SET}, or open the firewall between."),
)


class DatabaseError(ContractError):
    """The database could not be used; the message is meant for whoever runs the server.

    If it is lasting, a person must act; else the server or the network may come back by itself.
    """

    def __init__(self, message: str, *, is_lasting: bool):
        super().__init__(message)
        self.is_lasting = is_lasting


class BadRowError(DatabaseError):
    """PostgreSQL cannot hold a value; nothing was inserted, the connection is usable."""


class _NoAnswer(TimeoutError):  # noqa: N818
    pass


class _PatientConnection(extensions.connection):
    """A connection that waits for nothing longer than its patience."""

    def __init__(self, dsn: str, *, patience_s: float):
        self.patience_s = patience_s
        try:
            super().__init__(dsn)
        except BaseException:
            self.close()  # else the socket is open for as long as the traceback is kept
            raise


def _wait(connection: extensions.connection) -> None:
    """Wait for the server on behalf of psycopg2, which closes the connection if this raises."""
    patience_s = getattr(connection, "patience_s", LONG_S)
    give_up = time.monotonic() + patience_s
    while (state := connection.poll()) != POLL_OK:
        poller, left_s = select.poll(), max(0, give_up - time.monotonic())
        poller.register(connection, select.POLLIN if state == POLL_READ else select.POLLOUT)
        if not poller.poll(left_s * 1000):
            raise _NoAnswer(f"the server has not answered for {patience_s:.1f} s")


@contextmanager
def in_words(address: DatabaseAddress) -> Iterator[None]:
    """Turn what psycopg2 raises into a DatabaseError that says what to do."""
    try:
        yield
    except (psycopg2.Error, _NoAnswer) as error:
        raise _explain(address, error) from error


def _explain(address: DatabaseAddress, error: psycopg2.Error | _NoAnswer) -> DatabaseError:
    text, code = str(error), getattr(error, "pgcode", None) or ""
    pattern, is_lasting, advice = next(a for a in ADVICE if re.search(a[0], f"{code} {text}"))
    reason = getattr(getattr(error, "diag", None), "message_primary", None) or text
    lines = reason.strip().split("\n")  # one for each address of the host
    reason = next((line for line in lines if re.search(pattern, line)), lines[0])
    reason = reason.removeprefix("FATAL:  ").rstrip(".")
    if isinstance(error, errors.DependentObjectsStillExist):
        reason += f", {error.diag.message_detail}".replace("\n", ", ")
    if BAD_ROW.fullmatch(code):
        return BadRowError(f"{address.name} cannot hold a value: {reason}.", is_lasting=True)
    return DatabaseError(f"{address.name}: {reason}. {advice}", is_lasting=is_lasting)


def connect(address: DatabaseAddress, *, patience_s: float) -> extensions.connection:
    """Connect; no wait takes longer than so many seconds, all raise DatabaseError.

    Queries raise what psycopg2 raises, see `in_words`. Cursors with a name stream; COPY is not to
    be had, since psycopg2 refuses it where a function of ours waits.
    """
    set_wait_callback(_wait)  # for all connections of the process
    start = time.monotonic()
    parts = _parts(address, patience_s)
    left_s = max(0.0, patience_s - (time.monotonic() - start))
    with in_words(address):
        connection = psycopg2.connect(
            connection_factory=partial(_PatientConnection, patience_s=left_s), **parts
        )
    connection.patience_s = patience_s
    return connection


def _parts(address: DatabaseAddress, patience_s: float) -> dict[str, str]:
    """Give what libpq asks for, with the addresses of the host, which it would find without end."""
    try:
        parts = parse_dsn(address.url)
    except psycopg2.ProgrammingError:  # its words may hold the password
        raise DatabaseError(
            f"{address.name}: the URL cannot be read, expected {URL_FORM} with %40 for @ and the "
            "like in user and password, and after a ? only what libpq knows. Correct it.",
            is_lasting=True,
        ) from None
    host = parts.get("host", "")
    if host and "hostaddr" not in parts and "," not in host and host[0] not in "/@":
        found = _look_up(host, address, patience_s)
        parts |= {"host": ",".join([host] * len(found)), "hostaddr": ",".join(found)}
    return parts | {"client_encoding": "UTF8", "fallback_application_name": "prediction log"}


def _look_up(host: str, address: DatabaseAddress, patience_s: float) -> list[str]:
    """Find the addresses of a host in a thread: with a dead name server it takes half a minute."""
    answers: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_answer, args=(host, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=patience_s)
    except queue.Empty:
        answer = socket.gaierror(socket.EAI_AGAIN, f"no answer for {patience_s:g} s")
    if isinstance(answer, list):
        return list(dict.fromkeys(answer))
    reason = getattr(answer, "strerror", None) or answer
    raise DatabaseError(
        f"{address.name}: the host is not known here, {reason}. Correct it {SET}, where %40 stands "
        "for an @ in user or password, or mend the look-up of names.",
        is_lasting=getattr(answer, "errno", None) != socket.EAI_AGAIN,
    ) from answer


def _answer(host: str, answers: queue.SimpleQueue) -> None:
    try:
        answers.put([found[4][0] for found in socket.getaddrinfo(host, None)])
    except (OSError, UnicodeError) as error:
        answers.put(error)
