"""HTTP requests, put together from bytes as they come; nothing here waits for a client.

gunicorn's own parser reads the head once all of it is there. The body is collected whole, so that
the app reads a file: its length is known, it never stalls, and no client can leave in its midst.
"""

import io
import re
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

SMALL_BYTES = 64 * 2**10  # a body up to here stays in memory, a larger one goes to a file
MAX_HEAD_BYTES = 64 * 2**10
MAX_LINE_BYTES = 4096  # of a chunk's size and its extensions
N_FREE_CHUNKS = 1000  # that may be of any size; with more, a tiny mean is an attack on our time
MIN_MEAN_CHUNK = 16
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?")
STATUS = {ExpectationFailed: 417, LimitRequestHeaders: 431, LimitRequestLine: 414}  # others: 400


class RefusedError(Exception):
    """What came can be no request that we answer; `status` tells why."""

    def __init__(self, status: int, why: str):
        self.status = status
        super().__init__(why)


def spooled() -> IO[bytes]:
    return SpooledTemporaryFile(SMALL_BYTES)


class Body:
    """A body of known length."""

    def __init__(self, n_bytes: int):
        self.n_bytes = n_bytes  # known so far
        self.n_missing = n_bytes
        self.file = io.BytesIO() if n_bytes <= SMALL_BYTES else spooled()

    def take(self, received: bytearray) -> bool:
        """Take from the front of `received` what belongs to the body; say whether it is whole."""
        if self.n_missing:
            n_taken = min(self.n_missing, len(received))
            self.file.write(received[:n_taken])
            del received[:n_taken]
            self.n_missing -= n_taken
        return not self.n_missing


class ChunkedBody(Body):
    """A body in chunks, each after a line with its size; the last is empty, trailers follow."""

    def __init__(self, max_bytes: int):
        super().__init__(0)
        self.file = spooled()
        self._max_bytes = max_bytes
        self._n_chunks = 0
        self._n_trailer_bytes = 0
        self._read_line = self._read_size

    def take(self, received: bytearray) -> bool:
        while super().take(received):
            end = received.find(b"\r\n")
            if end > MAX_LINE_BYTES or (end < 0 and len(received) > MAX_LINE_BYTES):
                raise RefusedError(400, "A line between chunks is too long.")
            if end < 0:
                return False
            line = bytes(received[:end])
            del received[: end + 2]
            if self._read_line(line):
                return True
        return False

    def _read_size(self, line: bytes) -> bool:
        match = CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise RefusedError(400, "A chunk has no size.")
        size = int(match[1], 16)
        self.n_missing = size
        self.n_bytes += size
        self._n_chunks += 1
        if self.n_bytes > self._max_bytes:
            raise RefusedError(413, f"The body is larger than {self._max_bytes:,} bytes.")
        if self._n_chunks > N_FREE_CHUNKS and self.n_bytes < MIN_MEAN_CHUNK * self._n_chunks:
            raise RefusedError(400, "The chunks are too small.")
        self._read_line = self._read_chunk_end if size else self._read_trailer
        return False

    def _read_chunk_end(self, line: bytes) -> bool:
        if line:
            raise RefusedError(400, "A chunk is longer than its size.")
        self._read_line = self._read_size
        return False

    def _read_trailer(self, line: bytes) -> bool:
        """Skip a trailer, whose fields nobody here asks for; the empty line ends the request."""
        self._n_trailer_bytes += len(line)
        if self._n_trailer_bytes > MAX_HEAD_BYTES:
            raise RefusedError(431, "The trailers are too long.")
        return not line


class Incoming:
    """The requests of one client, one after the other."""

    def __init__(self, cfg: Config, client: Any, max_body_bytes: int):
        self.received = bytearray()  # and not yet taken; may hold the next request, too
        self.request: Request | None = None  # once its head is there
        self.body: Body | None = None
        self.awaits_continue = False  # before it sends the body
        self._cfg = cfg
        self._client = client
        self._max_body_bytes = max_body_bytes
        self._n_requests = 0
        self._n_searched = 0
        self._last_head, self._last_request = b"", None

    def advance(self) -> bool:
        """Go on with what was received; True if a request is there with all of its body.

        Raises RefusedError; `request` is set if the head was understood.
        """
        if self.request is None and not self._take_head():
            return False
        return self.body.take(self.received)

    def finish(self) -> Request:
        """Give the whole request; the bytes that came after it stay for the next."""
        request, body = self.request, self.body
        if isinstance(body, ChunkedBody):
            # as RFC 9112, 7.1.3, has it; Flask then compares the length with its limits
            kept = [each for each in request.headers if each[0] != "TRANSFER-ENCODING"]
            request.headers = [*kept, ("CONTENT-LENGTH", str(body.n_bytes))]
        body.file.seek(0)
        request.body = body.file
        return request

    def n_received(self) -> int:
        """Count the bytes of the body so far."""
        return self.body.n_bytes - self.body.n_missing if self.body else 0

    def forget(self) -> None:
        """Make ready for the next request."""
        if self.body is not None:
            self.body.file.close()
        self.request = self.body = None
        self._n_searched = 0

    def _take_head(self) -> bool:
        end = self.received.find(b"\r\n\r\n", max(self._n_searched - 3, 0))
        self._n_searched = len(self.received)
        if end > MAX_HEAD_BYTES or (end < 0 and self._n_searched > MAX_HEAD_BYTES):
            raise RefusedError(431, "The head is too long.")
        if end < 0:
            return False
        head = bytes(self.received[: end + 4])
        del self.received[: end + 4]
        request = self._parse(head)
        self.awaits_continue = request._expected_100_continue
        request._expected_100_continue = False  # or gunicorn would answer it later, too
        self._begin_body(request)
        return True

    def _parse(self, head: bytes) -> Request:
        """Parse a head; what it was parsed into serves again, as programs repeat their heads."""
        self._n_requests += 1
        if head != self._last_head:
            lines = IterUnreader([head])
            try:
                self._last_request = Request(self._cfg, lines, self._client, self._n_requests)
            except ParseException as error:  # its text may hold a token: only its kind is told
                kind = type(error)
                raise RefusedError(STATUS.get(kind, 400), f"{kind.__name__}.") from None
            self._last_head = head
        request = Request.__new__(Request)
        vars(request).update(vars(self._last_request))
        return request

    def _begin_body(self, request: Request) -> None:
        self.request, reader = request, request.body.reader
        if isinstance(reader, ChunkedReader):
            self.body = ChunkedBody(self._max_body_bytes)
        elif reader.length <= self._max_body_bytes:
            self.body = Body(reader.length)
        else:
            raise RefusedError(413, f"The body is larger than {self._max_body_bytes:,} bytes.")
        codings = [value for name, value in request.headers if name == "TRANSFER-ENCODING"]
        if codings and [each.lower() for each in codings] != ["chunked"]:
            raise RefusedError(400, "Only chunked is understood as a transfer coding.")
