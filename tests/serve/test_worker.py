"""The worker under clients that are slow, many, rude or in a hurry, and under signals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from serve.worker import GRACE_S, PART_S
from tests.example import ROOT
from tests.serve.servers import OTHERS_SETTINGS, free_port

GUNICORN = [sys.executable, "-m", "gunicorn", "--config", "python:serve.gunicorn_conf"]
N_SLOW = 64
SOON_S = 2  # also on a busy machine; exact figures are in benchmarks/results.md
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\n"


@dataclass(frozen=True)
class Server:
    """gunicorn with our worker around tests/serve/slow_app.py."""

    process: subprocess.Popen
    port: int
    output: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def client(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Send one request over a connection of its own."""
        connection = self.client()
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def send(self, *pieces: bytes, pause_s: float = 0.02) -> bytes:
        """Send bytes as they are, in pieces; give all that comes back until the end."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
                time.sleep(pause_s)
            return read_all(client)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def environment(**settings: str) -> dict[str, str]:
    kept = {key: v for key, v in os.environ.items() if not key.startswith(OTHERS_SETTINGS)}
    return kept | {"HOST": "127.0.0.1", "WORKERS": "1", "THREADS": "2"} | settings


@contextmanager
def serving(place: Path, **settings: str) -> Iterator[Server]:
    port, output = free_port(), place / "output.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*GUNICORN, "tests.serve.slow_app:app"],
            cwd=ROOT,
            env=environment(PORT=str(port), **settings),
            stdout=file,
            stderr=file,
        )
    server = Server(process, port, output)
    try:
        wait_until_up(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=20)


def wait_until_up(server: Server) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            server.ask("/health")
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(server.output.read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server that all tests share which leave it as it is."""
    place = tmp_path_factory.mktemp("worker")
    with serving(place, MAX_UPLOAD_BYTES="1000000", PATIENCE_S="1.5") as started:
        yield started


def seconds_to(server: Server, path: str, body: bytes | None = None) -> float:
    began = time.monotonic()
    status, _ = server.ask(path, body)
    assert status == 200
    return time.monotonic() - began


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /ec",
        HEAD + b"Content-Length: 10\r\n\r\n12345",
        HEAD + b"Content-Length: 500000\r\n\r\n12345",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n123",
    ],
    ids=["silent", "head", "body", "large body", "chunked"],
)
def test_slow_clients_stop_nobody_and_are_parted_with(begun, server):
    with ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(N_SLOW)]
        for client in slow:
            client.sendall(begun)

        assert seconds_to(server, "/health") < SOON_S
        assert seconds_to(server, "/echo", b"quick") < SOON_S

        answers = [read_all(client) for client in slow]
    if begun:
        assert {answer.split(b"\r\n")[0] for answer in answers} <= {
            b"HTTP/1.1 408 Request Timeout",
            b"HTTP/1.1 408 REQUEST TIMEOUT",
            b"HTTP/1.1 503 SERVICE UNAVAILABLE",  # of the large: more uploads than places
        }


def test_client_that_sends_a_byte_now_and_then_is_parted_with(server):
    with server.connect() as client:
        client.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        began = time.monotonic()
        client.settimeout(0.2)
        answer = b""
        while not answer:
            client.sendall(b"x")
            try:
                answer = client.recv(1000)
            except TimeoutError:
                assert time.monotonic() - began < 10

    assert answer.startswith(b"HTTP/1.1 408")


def test_who_has_fewest_connections_takes_the_next(tmp_path):
    with serving(tmp_path, WORKERS="2") as server, ExitStack() as stack:
        connect_to_both(server, stack)
        first, _ = psutil.Process(server.process.pid).children()
        first.kill()
        for _ in range(16):  # which are for the other, until one follows
            stack.enter_context(server.connect())
        first.wait()
        connect_to_both(server, stack)
        assert max(connections_of(server)) >= 16
        for _ in range(64 - sum(connections_of(server))):
            stack.enter_context(server.connect())

        wait_until(lambda: sum(connections_of(server)) == 64)
        assert min(connections_of(server)) > 24  # each half, where both have a processor


def test_who_has_far_more_connections_leaves_some_to_the_other(tmp_path):
    with serving(tmp_path, WORKERS="2") as server, ExitStack() as stack:
        wait_until(lambda: len(connections_of(server)) == 2)
        first, _ = psutil.Process(server.process.pid).children()
        clients = [stack.enter_context(closing(server.client())) for _ in range(16)]
        first.suspend()
        assert not any(ask_again(each) for each in clients)
        assert connections_of(server) == [0, 16]
        first.resume()

        n_ended = 0
        while connections_of(server)[0] < 7:
            n_ended += sum(ask_again(each) for each in clients)
        time.sleep(2 * PART_S)
        assert n_ended <= 8
        assert not any(ask_again(each) for each in clients)


def ask_again(client: HTTPConnection) -> bool:
    """Ask over a connection that is kept if the server lets it; say whether that has ended it."""
    client.request("GET", "/echo")
    response = client.getresponse()
    assert response.status == 200
    response.read()
    return response.will_close


def connect_to_both(server: Server, stack: ExitStack) -> None:
    """Connect until each of two workers has a connection."""

    def has_each() -> bool:
        stack.enter_context(server.connect())
        time.sleep(0.02)  # until it is taken
        return len(found := connections_of(server)) == 2 and min(found) > 0

    wait_until(has_each)


def connections_of(server: Server) -> list[int]:
    """Count the connections of each worker that has come up."""
    workers = psutil.Process(server.process.pid).children()
    found = [each.net_connections() for each in workers]
    return [sum(c.status == psutil.CONN_ESTABLISHED for c in each) for each in found]


def wait_until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_clients_that_do_not_read_their_answers_stop_nobody(server):
    with ExitStack() as stack:
        for _ in range(N_SLOW):
            client = socket.socket()
            stack.enter_context(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.connect(("127.0.0.1", server.port))
            client.sendall(b"GET /large?n=100000 HTTP/1.1\r\nHost: x\r\n\r\n")

        assert seconds_to(server, "/health") < SOON_S
        assert seconds_to(server, "/echo", b"quick") < SOON_S


@pytest.mark.parametrize("n_bytes", [0, 1, 65_536, 65_537, 999_999])
def test_body_arrives_whole_however_it_is_sent(n_bytes, server):
    body = b"x" * n_bytes
    told = {"n_bytes": n_bytes, "start": "x" * min(n_bytes, 20)}

    status, answer = server.ask("/echo", body)
    assert (status, json.loads(answer)) == (200, told)

    status, answer = server.ask("/echo", (body[i : i + 9999] for i in range(0, n_bytes, 9999)))
    assert (status, json.loads(answer)) == (200, told)


def test_file_of_a_form_arrives_whole_when_chunked(server):
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    pieces = iter([form, *[b"y" * 10_000] * 20, b"\r\n--b--\r\n"])
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    assert server.ask("/file", pieces, **headers) == (200, b'{"n_bytes":200000}\n')


def test_body_over_the_limit_is_413_with_a_length_and_without(server):
    body = b"x" * 1_000_001

    assert server.ask("/echo", body)[0] == 413
    assert server.ask("/echo", iter([body]))[0] == 413
    assert (
        server.ask("/echo", iter([body[i : i + 1000] for i in range(0, 10**6 + 1, 1000)]))[0] == 413
    )


def test_waiting_client_is_told_to_continue_unless_its_body_is_too_large(server):
    with server.connect() as client:
        client.sendall(
            HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        answer = read_all(client)
    refused = server.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 3000000\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"n_bytes":3' in answer
    assert refused.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("pause_s", [0, 0.01])
def test_requests_sent_in_one_go_are_answered_in_their_order(pause_s, server):
    chunked = (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nbb1\r\n1\r\nb\r\n0\r\nT: t\r\n\r\n"
    )
    counted = HEAD + b"Content-Length: 2\r\n\r\naa"
    last = HEAD + b"Connection: close\r\n\r\n"
    sent = counted + chunked + b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n" + counted + last

    pieces = [sent[i : i + 7] for i in range(0, len(sent), 7)] if pause_s else [sent]
    answers = server.send(*pieces, pause_s=pause_s)

    assert re.findall(rb'"start":"(.*?)"', answers) == [b"aa", b"bb1b", b"", b"aa", b""]


def test_connection_is_kept_for_the_next_request(server):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    ports = set()
    for _ in range(5):
        connection.request("POST", "/echo", b"{}")
        connection.getresponse().read()
        ports.add(connection.sock.getsockname())
    connection.close()

    assert len(ports) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nAuthorization s3cret\r\n\r\n", 400),
        (b"GET /echo HTTP/9.9\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 10_000, 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5_000, 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /echo HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /echo HTTP/1.1\r\nA: " + b"b" * 100_000, 431),
        (b"\r\n\r\n", 400),
        (HEAD + b"Expect: more\r\n\r\n", 417),
    ],
    ids=lambda value: repr(value[-25:]) if isinstance(value, bytes) else str(value),
)
def test_request_that_is_none_is_told_and_ends_the_connection(sent, status, server):
    answer = server.send(sent)

    assert int(answer.split(b" ", 2)[1]) == status
    assert b"s3cret" not in server.output.read_bytes()
    assert seconds_to(server, "/echo") < SOON_S


def test_client_that_leaves_is_not_our_problem(server):
    begun = HEAD + b"Content-Length: 100000\r\n\r\nabc"
    for sent in (b"", b"GET", begun, b"GET /large?n=900000 HTTP/1.1\r\nHost: x\r\n\r\n"):
        for linger in (b"\1\0\0\0\0\0\0\0", b"\0\0\0\0\0\0\0\0"):  # by a reset, and in order
            client = server.connect()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.sendall(sent)
            time.sleep(0.05)
            client.close()

    assert seconds_to(server, "/echo") < SOON_S
    assert "Traceback" not in server.output.read_text()


def test_answer_that_breaks_off_ends_the_connection_and_is_logged(tmp_path):
    with serving(tmp_path) as server:
        answer = server.send(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")

        assert b"begun" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        assert "in the midst of an answer" in server.output.read_text()
        assert server.ask("/echo")[0] == 200


@pytest.mark.parametrize("by", ["the loop", "a thread"])
def test_connection_that_comes_as_an_answer_breaks_off_is_answered(by, tmp_path):
    sync = "normal" if by == "the loop" else "full"
    with serving(tmp_path, PREDICTION_LOG_SYNC=sync) as server:
        for _ in range(40):
            server.send(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", pause_s=0)
            assert server.ask("/echo")[0] == 200

        assert "already registered" not in server.output.read_text()
        assert server.stop() == 0


def test_rush_is_shed_while_the_vital_routes_answer(tmp_path):
    with serving(tmp_path, QUEUE="3") as server, ThreadPoolExecutor(30) as clients:

        def ask(_: int) -> tuple[int, str | None, float]:
            connection, began = (
                HTTPConnection("127.0.0.1", server.port, timeout=30),
                time.monotonic(),
            )
            connection.request("GET", "/echo?s=1")
            response = connection.getresponse()
            response.read()
            connection.close()
            return response.status, response.getheader("Retry-After"), time.monotonic() - began

        asked = [clients.submit(ask, i) for i in range(25)]
        time.sleep(0.3)
        health_s = seconds_to(server, "/health")
        answers = [each.result() for each in asked]

    accepted = [answer for answer in answers if answer[0] == 200]
    shed = [answer for answer in answers if answer[0] == 503]
    assert health_s < 0.7  # of the second that the threads are busy
    assert (len(accepted), len(shed)) == (5, 20)  # two threads, three that wait
    assert {retry_after for _, retry_after, _ in shed} == {"1"}
    assert max(seconds for *_, seconds in shed) < 0.9


def test_answer_that_takes_long_holds_up_nobody(tmp_path):
    with serving(tmp_path) as server, ThreadPoolExecutor(1) as clients:
        for _ in range(5):  # the loop is handed over, and back
            slow = clients.submit(server.ask, "/echo?s=0.3", b"x")
            time.sleep(0.05)
            others_s = [seconds_to(server, path) for path in ("/echo", "/health", "/echo")]
            assert not slow.done()
            assert max(others_s) < 0.2
            assert slow.result()[0] == 200
            assert seconds_to(server, "/echo") < 0.2


def test_sigterm_during_an_answer_in_the_main_loop_ends_it_in_peace(tmp_path):
    with serving(tmp_path) as server, ThreadPoolExecutor(2) as clients:
        asked = [clients.submit(server.ask, f"/echo?s={s}", b"x") for s in (0.5, 1)]
        time.sleep(0.2)
        server.process.terminate()

        assert [each.result()[0] for each in asked] == [200, 200]
        assert server.process.wait(timeout=10) == 0


def test_idle_worker_sleeps(tmp_path):
    with serving(tmp_path) as server:
        server.ask("/echo")
        (worker,) = psutil.Process(server.process.pid).children()
        time.sleep(0.5)
        threads = [Path(f"/proc/{worker.pid}/task/{each.id}/status") for each in worker.threads()]

        def n_wakes() -> int:
            told = "".join(each.read_text() for each in threads)
            return sum(map(int, re.findall(r"\nvoluntary_ctxt_switches:\s+(\d+)", told)))

        before = n_wakes()
        time.sleep(1)
        assert n_wakes() - before < 50  # the stand-in alone would wake 200 times


def test_client_that_sends_ahead_does_not_keep_the_worker_busy(tmp_path):
    with serving(tmp_path) as server, server.connect() as client:
        (worker,) = psutil.Process(server.process.pid).children()
        client.sendall(b"GET /echo?s=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
        before = sum(worker.cpu_times()[:2])
        client.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = read_all(client)

        assert answers.count(b"HTTP/1.1 200") == 2
        assert sum(worker.cpu_times()[:2]) - before < 0.4


@pytest.mark.parametrize("path", ["/echo", "/static/none", "/large?n=0", "/large?n=3000000"])
def test_answer_without_a_body_has_its_head_and_keeps_the_connection(path, server):
    head = f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    last = b"GET /large?n=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answers = server.send(head, head, last)

    assert answers.count(b"HTTP/1.1 ") == 3
    assert answers.count(b"\r\n\r\n") == 3
    assert answers.endswith(b"\r\n\r\n")


def test_sigterm_answers_what_is_in_flight_and_what_has_begun_to_come(tmp_path):
    with serving(tmp_path, THREADS="8") as server, ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(server.ask, "/echo?s=0.5", b"x") for _ in range(8)]
        with server.connect() as half, server.connect() as idle:
            half.sendall(HEAD + b"Content-Length: 10\r\n\r\n12345")
            time.sleep(0.2)
            server.process.terminate()
            time.sleep(0.2)
            half.sendall(b"67890")
            idle.sendall(HEAD + b"\r\n")
            late = [read_all(half), read_all(idle)]
        statuses = [each.result()[0] for each in asked]
        stopped = server.process.wait(timeout=10)

    assert statuses == [200] * 8
    assert all(b" 200 OK" in answer and b"Connection: close" in answer for answer in late)
    assert b'"n_bytes":10' in late[0]
    assert stopped == 0


def test_sighup_under_load_loses_no_request(tmp_path):
    with serving(tmp_path, WORKERS="2") as server:
        before, statuses, is_over = pids(server), [], threading.Event()

        def ask_on() -> None:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            while not is_over.is_set():
                connection.request("POST", "/echo?s=0.01", b"x" * 1000)
                response = connection.getresponse()
                statuses.append((response.status, len(response.read()) > 0))
            connection.close()

        with ThreadPoolExecutor(8) as clients:
            asking = [clients.submit(ask_on) for _ in range(8)]
            for _ in range(2):
                server.process.send_signal(signal.SIGHUP)
                time.sleep(1.2)
            is_over.set()
            for each in asking:
                each.result()
        after = pids(server)

    assert set(statuses) == {(200, True)}
    assert len(statuses) > 100
    assert before & after == set()


def pids(server: Server) -> set[int]:
    return {json.loads(server.ask("/health")[1])["pid"] for _ in range(20)}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "abc", "PORT is 'abc'"),
        ("PORT", "70000", "PORT is '70000'"),
        ("WORKERS", "0", "WORKERS is '0'"),
        ("THREADS", "many", "THREADS is 'many'"),
        ("MAX_UPLOAD_BYTES", "5 apples", "MAX_UPLOAD_BYTES is '5 apples'"),
    ],
)
def test_wrong_setting_stops_the_start_with_one_sentence(name, value, told):
    output = start_in_vain(**{name: value})

    assert told in output
    assert "Traceback" not in output


def test_port_in_use_stops_the_start_with_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        output = start_in_vain(PORT=str(other.getsockname()[1]))

    assert output.startswith("Cannot listen on 127.0.0.1, port ")
    assert "Address already in use" in output
    assert "Traceback" not in output


def start_in_vain(**settings: str) -> str:
    done = subprocess.run(
        GUNICORN,
        cwd=ROOT,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    return done.stdout


def test_slow_uploads_make_room_for_others(tmp_path):
    begun = HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000
    with serving(tmp_path) as server, ExitStack() as stack:
        for _ in range(40):  # more than there are places
            stack.enter_context(server.connect()).sendall(begun)
        time.sleep(GRACE_S + 0.5)

        answers = [server.ask("/echo", b"x" * 200_000) for _ in range(3)]

    assert [status for status, _ in answers] == [200] * 3


def test_header_of_a_program_on_this_machine_changes_no_path(server):
    assert server.ask("/health", SCRIPT_NAME="/x")[0] == 200
    assert server.ask("/x/health", SCRIPT_NAME="/x")[0] == 404
