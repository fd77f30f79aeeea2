"""The shipper: one process delivers the log, and another follows whatever ends it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from contract.predictions.outbox import lag_of
from contract.predictions.settings import DatabaseAddress
from contract.predictions.turn import holder_of, sign, take_lock, take_place
from serve.shipper import NICE
from tests.contract.predictions.test_delivery import ids_there
from tests.contract.predictions.test_outbox import add_old
from tests.example import ROOT
from tests.postgres import FreshDatabase
from tests.serve.servers import running
from tests.serve.test_predict import FLAT

TAKEN_OVER_S = 2.0  # by who waits
NEXT_ROW_S = 6.0  # until it is there, also on a busy machine
# appends as a worker does, a few hundred times a second; every id is acknowledged in a file
WORKER = """
import signal, socket, sys, time
import numpy as np
from contract.artifact import Predictions
from contract.predictions.log import PredictionLog
from contract.predictions.settings import LogSettings
from contract.settings import read_settings
from serve.logs import log_to_stderr
from serve.keeper import Keeper

log_to_stderr("INFO")
listener = socket.create_server(("127.0.0.1", 0))
listener.set_inheritable(True)
settings, stop = read_settings(LogSettings), []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
keeper, log = Keeper(settings), PredictionLog(settings.log_path)
keeper.start()
y_pred = np.array([1.0])
about = {"model": "0a1b2c3d4e5f", "source": "api", "request_id": "r", "latency_ms": 1.5}
with open(sys.argv[1], "ab", buffering=0) as acknowledged:
    while not stop:
        for row_id in log.append(["{}"], Predictions(y_pred, y_pred, y_pred), **about):
            acknowledged.write(row_id.encode() + b"\\n")
        time.sleep(0.005)
log.close()
keeper.close()
"""


class Site:
    """Workers of one server, its log, and its database."""

    def __init__(self, folder: Path, url: str, **environment: str) -> None:
        self.log_path = folder / "predictions.db"
        self.address = DatabaseAddress(url)
        self.output = folder / "output.log"
        self.acknowledged = folder / "ids"
        self.workers: list[subprocess.Popen] = []
        kept = {key: v for key, v in os.environ.items() if not key.startswith(("DB_", "PYTHON"))}
        log = {"PREDICTION_LOG": str(self.log_path), "DATABASE_URL": url}
        self._environment = kept | log | environment

    def start_worker(self) -> None:
        with self.output.open("ab") as output:
            command = [sys.executable, "-c", WORKER, str(self.acknowledged)]
            self.workers.append(
                subprocess.Popen(command, cwd=ROOT, env=self._environment, stderr=output)
            )

    def start_by_hand(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "serve.shipper"]
        with self.output.open("ab") as output:
            return subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdin=subprocess.PIPE, stderr=output
            )

    def stop(self) -> None:
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            worker.wait(20)

    def shippers(self) -> list[psutil.Process]:
        return [each for worker in self.workers for each in shippers_of(worker.pid)]

    def both(self) -> tuple[psutil.Process, psutil.Process]:
        """Wait for the process that delivers and the one that is to follow it, and give them."""
        wait_for(lambda: self._at_work() is not None and len(self.shippers()) == 2)
        (follower,) = (each for each in self.shippers() if each != self._at_work())
        return self._at_work(), follower

    def until_next_waits(self) -> None:
        """Wait until the follower has tried its way to the database, and has not failed early."""
        _, follower = self.both()
        wait_for(lambda: has_loaded(follower, "unicodedata"))  # as names of hosts need it
        wait_for(lambda: Path(f"{self.log_path}-shipper-next").read_text() == "0")

    def shipper(self) -> psutil.Process:
        """Wait for the process that delivers, and give it."""
        wait_for(lambda: self._at_work() is not None)
        return self._at_work()

    def _at_work(self) -> psutil.Process | None:
        holder = holder_of(self.log_path)
        found = [each for each in self.shippers() if holder and each.pid == holder.pid]
        return found[0] if found else None

    def worker_of(self, shipper: psutil.Process) -> subprocess.Popen:
        (parent,) = (each for each in self.workers if each.pid == shipper.ppid())
        return parent

    def ids(self) -> list[str]:
        return self.acknowledged.read_text().split()

    def n_waiting(self) -> int:
        return lag_of(self.log_path, self.address.name)[0].n_rows

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]


def shippers_of(pid: int) -> list[psutil.Process]:
    """List those that a worker has started and that have not ended."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with suppress(psutil.NoSuchProcess):  # nor has a zombie a command
                if "serve.shipper" in child.cmdline():
                    found.append(child)
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 15, *, pause_s: float = 0.02) -> float:
    """Wait until it holds; give the seconds that it took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() < began_s + seconds
        time.sleep(pause_s)
    return time.monotonic() - began_s


def seconds_until_delivered(site: Site, postgres: FreshDatabase) -> float:
    """Give how long the next row that is logged takes to its table."""
    n_rows = len(site.ids())
    wait_for(lambda: len(site.ids()) > n_rows)
    row_id = site.ids()[n_rows]
    query = "SELECT 1 FROM predictions WHERE id = %s"
    return wait_for(lambda: postgres.execute(query, row_id) == [(1,)])


@pytest.fixture
def site(tmp_path, postgres) -> Iterator[Site]:
    """Two workers whose rows arrive."""
    site = Site(tmp_path, postgres.url)
    site.start_worker()
    site.start_worker()
    wait_for(lambda: site.log_path.exists() and len(site.ids()) > 10)
    wait_for(lambda: site.n_waiting() < 10)
    yield site
    site.stop()


def test_one_process_delivers_for_all_workers_and_takes_nothing_of_theirs_along(site):
    shipper, follower = site.both()

    assert shipper.nice() == follower.nice() == psutil.Process().nice() + NICE
    names = [Path(f"/proc/{shipper.pid}/fd/{fd}").resolve().name for fd in range(20)]
    assert [c for c in shipper.net_connections() if c.status == psutil.CONN_LISTEN] == []
    assert f"{site.log_path.name}-shipper" in names
    assert f"{site.log_path.name}-shipper-next" not in names
    assert take_lock(site.log_path) is None
    assert holder_of(site.log_path) == (shipper.pid, site.address.name)


def test_process_that_is_next_has_tried_the_way_and_then_holds_no_connection(site, postgres):
    site.until_next_waits()
    connected = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'prediction log' AND datname = current_database()"
    )

    assert postgres.execute(connected) == [(1,)]
    _, follower = site.both()
    assert [c for c in follower.net_connections() if c.status == psutil.CONN_ESTABLISHED] == []


def has_loaded(process: psutil.Process, library: str) -> bool:
    return any(library in each.path for each in process.memory_maps())


def test_process_that_is_next_is_another_workers(site):
    shipper, follower = site.both()

    assert site.worker_of(shipper) != site.worker_of(follower)


def test_single_worker_keeps_both(tmp_path, postgres):
    site = Site(tmp_path, postgres.url)
    site.start_worker()
    shipper, follower = site.both()
    site.stop()

    assert not shipper.is_running()
    assert not follower.is_running()


@pytest.mark.parametrize("victim", ["shipper", "its worker"])
def test_the_next_takes_over_from_a_process_that_was_killed(victim, site, postgres):
    site.until_next_waits()
    shipper, follower = site.both()
    worker = site.worker_of(shipper)
    (shipper if victim == "shipper" else worker).send_signal(signal.SIGKILL)

    seconds = wait_for(lambda: holder_of(site.log_path) == (follower.pid, site.address.name))
    assert seconds < TAKEN_OVER_S
    assert seconds_until_delivered(site, postgres) < NEXT_ROW_S
    wait_for(lambda: not shipper.is_running())  # nor is it a zombie
    if victim == "shipper":
        time.sleep(1)
        assert len(site.shippers()) == 1  # another start would take from answers now
        wait_for(lambda: len(site.shippers()) == 2)  # and has one to follow it
        wait_for(lambda: "was ended by signal 9, another follows" in site.output.read_text())


def test_others_follow_where_both_are_killed(site, postgres):
    killed = site.both()
    for each in killed:
        each.kill()

    wait_for(lambda: not {*killed} & {*site.both()})
    assert seconds_until_delivered(site, postgres) < NEXT_ROW_S


def test_others_follow_where_the_files_of_both_rights_were_removed(site, postgres):
    delivers, _ = site.both()
    for end in ("shipper", "shipper-next"):
        Path(f"{site.log_path}-{end}").unlink()

    wait_for(lambda: not delivers.is_running())
    assert delivers not in site.both()
    assert seconds_until_delivered(site, postgres) < NEXT_ROW_S
    assert len(site.shippers()) == 2


def test_what_is_left_is_delivered_at_the_end_and_the_process_gone(site, postgres):
    shipper = site.shipper()
    add_old(site.log_path, 20_000, days=1)

    site.stop()

    assert not shipper.is_running()
    assert site.n_waiting() == 0
    assert {*site.ids()} <= {*ids_there(postgres)}


def test_who_waits_delivers_at_the_end_what_another_left(site):
    shipper, follower = site.both()
    stopped, frozen = site.worker_of(follower), site.worker_of(shipper)
    for each in (frozen, shipper):
        each.send_signal(signal.SIGSTOP)
    try:
        add_old(site.log_path, 100, days=1)
        stopped.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # in which it has begun to end
        shipper.kill()
        stopped.wait(20)
        assert site.n_waiting() == 0
    finally:
        frozen.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_process_that_was_started_by_hand(number, tmp_path, postgres):
    site = Site(tmp_path, postgres.url)
    process = site.start_by_hand()
    wait_for(lambda: holder_of(site.log_path) == (process.pid, site.address.name))
    process.send_signal(number)

    assert process.wait(10) == 0
    process.stdin.close()
    assert take_lock(site.log_path) is not None


def test_end_is_soon_though_the_database_is_frozen(site, postgres):
    shipper = site.shipper()
    postgres.server.freeze()
    wait_for(lambda: site.n_waiting() > 20)

    began_s = time.monotonic()
    site.stop()

    assert time.monotonic() - began_s < 5
    assert not shipper.is_running()


def test_nothing_is_lost_or_doubled_over_mixed_faults(site, postgres):
    def kill_worker() -> None:
        worker = site.worker_of(site.shipper())
        site.start_worker()
        worker.kill()
        worker.wait()
        site.workers.remove(worker)

    def pause_database() -> None:
        postgres.server.freeze()
        time.sleep(0.3)
        postgres.server.thaw()

    def restart_after_kill() -> None:
        postgres.server.kill()
        postgres.server.start()

    faults = (
        lambda: site.shipper().kill(),
        restart_after_kill,
        kill_worker,
        postgres.server.restart,
        pause_database,
        lambda: site.shipper().kill(),
    )
    for fault in faults:
        fault()
        assert seconds_until_delivered(site, postgres) < NEXT_ROW_S
    site.stop()

    assert site.n_waiting() == 0
    there, ids = ids_there(postgres), site.ids()
    assert len(ids) > 500
    assert len(there) == len({*there})
    assert {*ids} <= {*there}  # a worker that was killed may not have acknowledged its last


def test_process_that_fails_at_its_start_is_tried_again_after_growing_pauses(tmp_path, postgres):
    site = Site(tmp_path, postgres.url, LOG_LEVEL="LOUD")
    site.start_worker()
    site.start_worker()

    def starts() -> list[str]:
        return [line["message"] for line in site.lines() if "LOG_LEVEL" in line["message"]]

    wait_for(lambda: site.output.exists() and len(starts()) == 1)
    seconds = wait_for(lambda: len(starts()) == 3)
    site.stop()

    assert seconds > 1
    told = [line["message"] for line in site.lines() if line["level"] == "error"]
    (once,) = [each for each in told if "a shipper" in each]
    assert "ended with status 1" in once
    assert "another follows, after up to 5 s if that fails at once" in once


def test_program_says_why_it_does_not_run(tmp_path, postgres):
    path = tmp_path / "predictions.db"

    def run(**environment: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-m", "serve.shipper"],
            cwd=ROOT,
            env=os.environ | {"PREDICTION_LOG": str(path)} | environment,
            input=b"",
            capture_output=True,
        )
        assert done.returncode == 1
        return json.loads(done.stderr)

    assert "DATABASE_URL is not set" in run()["message"]
    lock = take_lock(path)
    told = run(DATABASE_URL=postgres.url)
    os.close(lock)
    assert f"{path}: another process delivers it already." in told["message"]
    assert told["level"] == "error"


def test_server_whose_log_another_delivers_elsewhere_says_so_once(tmp_path, postgres):
    elsewhere = re.sub(r"/[^/]*$", "/elsewhere", postgres.url)
    first, second = Site(tmp_path, postgres.url), Site(tmp_path, elsewhere)
    second.output = tmp_path / "second.log"
    try:
        first.start_worker()
        first.both()
        second.start_worker()
        wait_for(lambda: second.output.exists() and len(second.lines()) > 0)
        time.sleep(2)
    finally:
        first.stop()
        second.stop()

    (told,) = [line["message"] for line in second.lines() if "gets no rows" in line["message"]]
    assert f"delivers it to {first.address.name}, so that {second.address.name} gets no" in told


def test_signature_of_a_process_that_has_ended_is_no_other_server(tmp_path, postgres):
    site = Site(tmp_path, postgres.url)
    lock, place = take_lock(site.log_path), take_place(site.log_path)
    sign(lock, "elsewhere")
    os.close(lock)
    site.start_worker()
    wait_for(lambda: site.acknowledged.exists() and len(site.ids()) > 10)
    time.sleep(2)  # in which the Keeper looks several times
    os.close(place)
    wait_for(lambda: site.n_waiting() == 0)
    site.stop()

    assert [line["level"] for line in site.lines() if line["level"] == "error"] == []


def test_process_loads_none_of_what_answers_need():
    program = "import sys, serve.shipper; raise SystemExit(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    loaded = {*done.stderr.split()}
    assert "psycopg2" in loaded
    heavy = {"flask", "numpy", "onnxruntime", "pandas", "pyarrow", "gunicorn", "pydantic_core"}
    assert loaded & heavy == set()  # they would double what a start takes from answers


def test_process_gives_way_from_its_first_moment_on(site):
    known = site.both()
    known[1].kill()
    followers = []

    def has_followed() -> bool:
        followers.extend(each for each in site.shippers() if each not in known)
        return bool(followers)

    wait_for(has_followed, pause_s=0.001)
    follower = followers[0]
    wait_for(lambda: follower.nice() == psutil.Process().nice() + NICE, pause_s=0.001)
    assert not has_loaded(follower, "_psycopg")


def test_reload_and_death_of_a_server_end_its_process(postgres, flats, tmp_path):
    def shippers() -> list[psutil.Process]:
        workers = psutil.Process(server.process.pid).children()
        return [each for worker in workers for each in shippers_of(worker.pid)]

    with running(flats, tmp_path, DATABASE_URL=postgres.url) as server:
        wait_for(lambda: len(shippers()) == 2)
        old = shippers()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: not any(each.is_running() for each in old))
        wait_for(lambda: len(shippers()) == 2)
        new = shippers()
        assert server.ask_json("/predict", FLAT)[0] == 200
        wait_for(lambda: len(ids_there(postgres)) == 1)
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not any(each.is_running() for each in new))


def test_memory_of_the_process_is_small(site, record_property):
    mib = site.shipper().memory_full_info().uss / 2**20

    record_property("shipper_mib", round(mib))
    assert mib < 80
