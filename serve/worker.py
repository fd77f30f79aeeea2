"""gunicorn's threaded worker, so changed that slow clients and a rush stop nobody else.

gunicorn gives a thread to a connection before its request has come, so that a few dozen clients
that send slowly hold all threads, and `/health` with them. Here the main loop collects each request
without blocking. Once all of a small one is there, the thread of the loop answers it, watched by a
stand-in (see serve.stand_in); where others wait already, or the body is large, a thread of a lane
is asked:

    vital      /health, /ready, /metrics: own threads, never behind anything else
    requests   all others; when more than `n_queued` wait, the next is turned away
    uploads    bodies above 64 KiB, which wait in files; a place is taken at the first byte
    lobby      one thread that lets the app answer what is turned away: see limits.turn_away

Written for the version of gunicorn in requirements.txt, plain HTTP/1.1; TLS is a proxy's business.
"""

import io
import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from serve.connection import Answering, Connection, Lane, Outgoing
from serve.incoming import SMALL_BYTES, Incoming, RefusedError
from serve.limits import REFUSED
from serve.rounds import Round
from serve.shares import AWAY, Shares
from serve.stand_in import StandIn

VITAL = {"/health", "/ready", "/metrics"}
QUICK = {"/predict"}  # others may take longer
N_VITAL_THREADS = 2
N_UPLOAD_THREADS = 4
N_UPLOADS = 32  # that come in, wait or are worked on, in one worker

READ_BYTES = 64 * 2**10
MIN_BYTES_PER_S = 16 * 2**10  # at this pace a large body may take longer than `patience_s`
SLOW_BYTES_PER_S = 2**20  # once others wait, one below this pace has to go ...
GRACE_S = 2  # ... unless it has only begun
SEND_S = 60  # for one piece of an answer to be taken by its client
ANSWER_BYTES = 512 * 2**10  # asked of the kernel, so that most answers wait there, not in a thread
LINGER_S = 5  # in which a client that still sends may read why it was turned away
STOP_S = 1  # in which a connection without a request may still bring one after SIGTERM
GIVE_WAY_S = 0.0005
PART_S = 0.1  # between two connections that a worker leaves to another, which has fewer
ROUND_S = 0.02  # of a round of events, in which the loop answers; what is left is for threads
SWEEP_S = 0.5
N_BACKLOG = 2048  # connections that the kernel may hold for us


class Worker(ThreadWorker):
    """Collects requests in the main loop, and answers them in threads."""

    shares: Shares  # of all workers; this and the next four are set by gunicorn_conf
    n_queued = 64
    answers_itself = True  # rather than in threads, which can wait for the disk together
    max_body_bytes = 500 * 2**20
    patience_s = 10.0  # from the first byte of a request to its last

    def init_process(self) -> None:
        for listener in self.sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_BYTES)
        self.waiting: set[Connection] = set()  # those from which more may come
        self.of_thread = threading.local()
        self.next_sweep_s = self.next_part_s = self.round_began_s = 0.0
        self.stand_in = StandIn(self.turn, partial(self.method_queue.defer, int))
        self.stand_in.start()
        self.round = Round(self.stand_in.watching)
        self.requests = Lane("requests", self.cfg.threads, self.cfg.threads + self.n_queued)
        self.vital = Lane("vital", N_VITAL_THREADS)
        self.uploads = Lane("uploads", N_UPLOAD_THREADS, N_UPLOADS)
        self.lobby = Lane("lobby", 1)
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return self.requests.pool

    def load_wsgi(self) -> None:
        super().load_wsgi()
        app = self.wsgi

        def with_refusal(environ: dict[str, Any], start_response: Any) -> Any:
            environ[REFUSED] = self.of_thread.refused
            return app(environ, start_response)

        self.wsgi = with_refusal

    # what the main loop does

    def accept(self, listener: Any) -> bool:
        """Take one connection, if there is one."""
        if self.alive and self.shares.fewest() < self.nr_conns:
            time.sleep(GIVE_WAY_S)
        try:
            sock, client = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:  # no file handles left, or the client has gone already
            self.log.warning("cannot accept a connection: %s", error)
            time.sleep(0.05)
            return False
        sock.settimeout(SEND_S)
        self.count(1)
        incoming = Incoming(self.cfg, client, self.max_body_bytes)
        conn = Connection(sock, client, listener.getsockname(), incoming)
        conn.deadline_s += self.patience_s
        self.wait(conn)
        return True

    def wait(self, conn: Connection) -> None:
        """Let the poller tell when more comes from this client."""
        if not conn.is_polled:
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_readable, conn))
            conn.is_polled = True
        self.waiting.add(conn)

    def unpoll(self, conn: Connection) -> None:
        if conn.is_polled:
            self.poller.unregister(conn.sock)
            conn.is_polled = False

    def on_readable(self, conn: Connection, sock: socket.socket) -> None:
        if conn not in self.waiting:  # but at work, or closed by an earlier event of this round
            self.unpoll(conn)
            return
        data = conn.read(READ_BYTES)
        if data is None:
            return
        if not data:
            self.drop(conn)
        elif not conn.is_leaving:
            self.receive(conn, data)

    def receive(self, conn: Connection, data: bytes) -> None:
        """Go on with a request; what is wrong with it concerns this connection alone."""
        if not conn.has_begun():
            conn.began_s = time.monotonic()
        conn.incoming.received += data
        try:
            self.advance(conn)
        except RefusedError as error:
            self.refuse(conn, error.status, str(error))
        except OSError as error:  # of the file that takes a large body
            self.log.error("cannot store an upload: %s", error)
            self.refuse(conn, 503, "There is no room for the body.")
        except Exception:  # a worker that dies of one client stops all the others
            self.log.exception("cannot read what %s sent", conn.client)
            self.drop(conn)

    def advance(self, conn: Connection) -> None:
        incoming = conn.incoming
        is_whole = incoming.advance()
        if incoming.body and conn.lane is None and incoming.body.n_bytes > SMALL_BYTES:
            if not self.uploads.n_free:
                self.part_with_slowest()
            if not self.uploads.n_free:
                raise RefusedError(503, "Too many files at once.")
            conn.enter(self.uploads)
        if is_whole:
            self.waiting.remove(conn)  # most are answered before the poller is asked again
            self.admit(conn)
            return
        if incoming.awaits_continue:
            incoming.awaits_continue = False
            conn.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        conn.deadline_s = conn.began_s + self.patience_s + incoming.n_received() / MIN_BYTES_PER_S

    def admit(self, conn: Connection) -> None:
        """Give a whole request to the threads that are there for it."""
        request, lane = conn.incoming.finish(), conn.lane
        if self.is_better_elsewhere(conn):
            request.force_close()
        if lane is None and request.path in VITAL:
            lane = conn.enter(self.vital)
        elif lane is None and self.may_answer_here(conn):
            conn.enter(self.requests)
            self.answer_here(conn, request.path)
            return
        elif lane is None and self.requests.n_free:
            lane = conn.enter(self.requests)
        elif lane is None:
            conn.refused = 503, "Too many requests at once."
            lane = conn.enter(self.lobby)
        lane.pool.submit(self.work, conn)

    def is_better_elsewhere(self, conn: Connection) -> bool:
        """Say whether a connection is to end with this answer, as another worker has far fewer.

        A worker that follows one that died would have none, until the clients of the other leave.
        """
        if self.round_began_s < self.next_part_s:
            return False
        self.next_part_s = self.round_began_s + PART_S
        fewest = self.shares.fewest()
        return (
            self.nr_conns > 2 + fewest + fewest // 4
            and not conn.incoming.received  # which would be lost
            and not any(each.is_leaving for each in self.waiting)  # and is counted until it left
        )

    def may_answer_here(self, conn: Connection) -> bool:
        """Say whether nobody has to wait while the thread of the loop answers this request.

        A client that has sent more, or has not taken its last answer, might make us wait for it.
        """
        return (
            self.answers_itself
            and not self.stand_in.has_loop
            and self.requests.n_taken() == len(self.round)
            and time.monotonic() - self.round_began_s < ROUND_S
            and not conn.incoming.received
            and not conn.n_unsent()
        )

    def answer_here(self, conn: Connection, path: str) -> None:
        if path not in QUICK:
            self.round.settle()  # rather than let others wait for this answer, ...
        self.round.begin(partial(self.handle, conn), partial(self.finish, conn))
        if path not in QUICK:
            self.round.settle()  # ... also those who come next

    def refuse(self, conn: Connection, status: int, why: str) -> None:
        """Turn away what has not come as a whole; the connection ends with it."""
        self.waiting.remove(conn)
        conn.leave()
        request = conn.incoming.request
        if request is None:
            self.log.info("no request from %s: %s", conn.client[0], why)
            conn.say_error(status, why)
            self.linger(conn)
            return
        conn.refused, request.body = (status, why), io.BytesIO()
        request.force_close()
        conn.enter(self.lobby).pool.submit(self.work, conn)

    def finish(self, conn: Connection, keep: bool | None) -> None:
        """Take the connection back once its request is answered, or its answer broke off."""
        conn.leave()
        conn.refused = None
        conn.incoming.forget()
        if not keep:
            self.linger(conn)
            return
        conn.began_s = time.monotonic()
        conn.deadline_s = conn.began_s + (self.cfg.keepalive if self.alive else STOP_S)
        self.wait(conn)
        if conn.incoming.received:
            self.receive(conn, b"")

    def linger(self, conn: Connection) -> None:
        """Let the client read its last answer; closed at once, it might see a reset instead."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop(conn)
            return
        conn.is_leaving = True
        conn.deadline_s = time.monotonic() + (LINGER_S if self.alive else STOP_S)
        self.wait(conn)

    def drop(self, conn: Connection) -> None:
        self.waiting.discard(conn)
        self.unpoll(conn)
        conn.leave()
        conn.incoming.forget()
        conn.sock.close()
        self.count(-1)

    def count(self, more: int) -> None:
        """Take note of one connection more or less."""
        self.nr_conns += more
        if self._accepting:
            self.shares.tell(self.age, self.nr_conns)

    def turn(self) -> None:
        """Run the loop once; its own thread does so in gunicorn's way, its stand-in in this."""
        self.notify()
        self.dispatch_events(SWEEP_S)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        self.dispatch_events(timeout)
        self.round.settle()

    def dispatch_events(self, timeout: float) -> None:
        events = self.poller.select(min(timeout, SWEEP_S))
        self.round_began_s = time.monotonic()
        for key, _ in events:  # some may be stale, if the stand-in has had the loop meanwhile
            key.data(key.fileobj)
        if self.nr_conns >= self.worker_connections:
            self.make_room()
        now_s = time.monotonic()
        if now_s >= self.next_sweep_s:
            self.next_sweep_s = now_s + SWEEP_S
            self.sweep(now_s)

    def sweep(self, now_s: float) -> None:
        """Part with those from whom nothing came in time."""
        for conn in [each for each in self.waiting if each.deadline_s < now_s]:
            if conn.has_begun() and not conn.is_leaving:
                self.refuse(conn, 408, "The request did not come in time.")
            else:
                self.drop(conn)

    def part_with_slowest(self) -> None:
        """Let the slowest upload go, if it is slow, so that a few such cannot keep out all."""
        now_s = time.monotonic()
        coming = {
            conn: conn.incoming.n_received() / (now_s - conn.began_s)
            for conn in self.waiting
            if conn.lane is self.uploads and now_s - conn.began_s > GRACE_S
        }
        slowest = min(coming, key=coming.get, default=None)
        if slowest is not None and coming[slowest] < SLOW_BYTES_PER_S:
            self.refuse(slowest, 408, "The file came too slowly, and others wait.")

    def make_room(self) -> None:
        """Part with the connection that has waited longest for a request to begin."""
        idle = [conn for conn in self.waiting if not conn.has_begun()]
        if idle:
            self.drop(min(idle, key=lambda conn: conn.deadline_s))

    def set_accept_enabled(self, enabled: bool) -> None:
        if self.alive:
            super().set_accept_enabled(enabled)
            self.shares.tell(self.age, self.nr_conns if enabled else AWAY)
        elif self._accepting:
            self.stop_accepting()

    def stop_accepting(self) -> None:
        """Take whom the kernel has accepted for us, and let go, so that nobody else is."""
        for listener in self.sockets:
            for _ in range(N_BACKLOG):
                if not self.accept(listener):
                    break
        super().set_accept_enabled(False)
        self.shares.leave(self.age)
        for listener in self.sockets:
            listener.close()
        soon_s = time.monotonic() + STOP_S
        for conn in self.waiting:
            if conn.incoming.request is None:
                conn.deadline_s = min(conn.deadline_s, soon_s)

    # what its threads do

    def work(self, conn: Connection) -> None:
        keep = False
        try:
            keep = self.handle(conn)
        finally:
            self.method_queue.defer(self.finish, conn, keep)

    def handle(self, conn: Connection) -> bool:
        """Answer a request; say whether the connection may bring another."""
        self.of_thread.refused = conn.refused
        request, out = conn.incoming.request, Outgoing(conn.sock)
        try:
            keep = self.handle_request(request, Answering(out, conn.client, conn.server))
            out.flush()
            return keep
        except (ConnectionError, TimeoutError) as error:
            self.log.debug("%s did not take its answer: %s", conn.client, error)
        except StopIteration:
            self.log.debug("closing %s, its answer broke off", conn.client)
        except Exception as error:  # noqa: BLE001, the thread must go on with the next
            self.handle_error(request, conn.sock, conn.client, error)
        return False
