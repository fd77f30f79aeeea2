"""How much a request may bring: no body is ever cut silently, and some are turned away unread."""

from collections.abc import Callable, Iterable
from typing import IO, Any

from flask import abort, request
from werkzeug.exceptions import RequestEntityTooLarge, ServiceUnavailable

REFUSED = "serve.refused"  # in the environ: with what status serve.worker turns it away, and why
RETRY_AFTER_S = 1


class LimitBody:
    """Answer 413 instead of reading more than `max_bytes`, with a Content-Length and without.

    Flask's own limit cuts a chunked body off and goes on with the rest missing. Our worker counts
    before it asks the app at all; this holds under any other server, too.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], max_bytes: int):
        self._app = app
        self._max_bytes = max_bytes

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        environ["wsgi.input"] = LimitedInput(environ["wsgi.input"], self._max_bytes)
        return self._app(environ, start_response)


class LimitedInput:
    """A body of which no more than so many bytes can be read; asking for more is a 413."""

    def __init__(self, body: IO[bytes], max_bytes: int):
        self._body = body
        self._max_bytes = self._n_left = max_bytes

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self._n_left:
            size = self._n_left + 1
        return self._count(self._body.read(size))

    def readline(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self._n_left:
            size = self._n_left + 1
        return self._count(self._body.readline(size))

    def __iter__(self) -> Iterable[bytes]:
        return iter(self.readline, b"")

    def _count(self, data: bytes) -> bytes:
        self._n_left -= len(data)
        if self._n_left < 0:
            raise RequestEntityTooLarge(f"The body is larger than {self._max_bytes:,} bytes.")
        return data


def turn_away() -> None:
    """Answer what serve.worker refused; before every request, so that it is logged and counted."""
    status, why = request.environ.get(REFUSED) or (0, "")
    if status == ServiceUnavailable.code:
        raise ServiceUnavailable(f"{why} Try again.", retry_after=RETRY_AFTER_S)
    if status:
        abort(status, why)
