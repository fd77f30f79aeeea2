"""One client of serve.worker, and the lanes of threads in which its requests find a place."""

import contextlib
import fcntl
import json
import math
import os
import socket
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, NamedTuple

from serve.incoming import Incoming


class Lane:
    """Threads, and the places for requests that they work on or that wait for them."""

    def __init__(self, name: str, n_threads: int, n_places: float = math.inf):
        self.pool = ThreadPoolExecutor(n_threads, thread_name_prefix=name)
        self.n_free = self.n_places = n_places

    def n_taken(self) -> int:
        return self.n_places - self.n_free


class Outgoing:
    """A client's socket for one answer, whose head leaves in one segment with what follows it."""

    def __init__(self, sock: socket.socket):
        self._sock = sock
        self._held: bytes | None = None  # until more comes; None: nothing has been sent yet

    def sendall(self, data: bytes) -> None:
        if self._held is None:
            self._held = data
            return
        held, self._held = self._held, b""
        self._sock.sendall(held + data)

    def flush(self) -> None:
        """Send a head that no body follows."""
        if self._held:
            self.sendall(b"")

    def close(self) -> None:
        """Leave it open, as gunicorn closes it when an answer breaks off: the loop may poll it."""

    def __getattr__(self, name: str) -> Any:
        """Let all else be done by the socket, to which what was held has gone before."""
        self.flush()
        return getattr(self._sock, name)


class Answering(NamedTuple):
    """What gunicorn has to know of a connection to answer on it."""

    sock: Outgoing
    client: Any
    server: Any


class Connection:
    """A client's socket, what has come from it, and until when more is awaited."""

    def __init__(self, sock: socket.socket, client: Any, server: Any, incoming: Incoming):
        self.sock, self.client, self.server = sock, client, server  # as gunicorn calls them
        self.incoming = incoming
        self.began_s = self.deadline_s = time.monotonic()
        self.lane: Lane | None = None  # in which it has a place
        self.refused: tuple[int, str] | None = None  # status and reason, if it is turned away
        self.is_leaving = False  # has its last answer
        self.is_polled = False  # by the main loop, for more to come

    def has_begun(self) -> bool:
        """Say whether some of a request is there."""
        return bool(self.incoming.received) or self.incoming.request is not None

    def enter(self, lane: Lane) -> Lane:
        lane.n_free -= 1
        self.lane = lane
        return lane

    def leave(self) -> None:
        if self.lane is not None:
            self.lane.n_free += 1
            self.lane = None

    def read(self, n_bytes: int) -> bytes | None:
        """Give what is there, None if nothing is; empty if the client has left."""
        try:
            return os.read(self.sock.fileno(), n_bytes)  # without the socket's timeout for sends
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def n_unsent(self) -> int:
        """Count the bytes of answers that the kernel still holds, as the client is slow."""
        held = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(held, sys.byteorder)

    def say(self, text: bytes) -> None:
        """Send a few bytes, or none if they cannot leave at once."""
        with contextlib.suppress(OSError):
            os.write(self.sock.fileno(), text)

    def say_error(self, status: int, why: str) -> None:
        """Tell what is wrong, where there is no request that the app could answer."""
        reason = HTTPStatus(status).phrase
        body = json.dumps({"error": f"{reason}: {why}"}).encode()
        head = (
            f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.say(head.encode() + body)
