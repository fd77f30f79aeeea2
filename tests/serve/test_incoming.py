"""Requests come out the same however their bytes are cut, and as gunicorn itself reads them."""

import io
from contextlib import closing
from itertools import pairwise

import pytest
from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader
from gunicorn.http.unreader import IterUnreader
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve.incoming import Incoming, RefusedError

MAX_BYTES = 200_000
CLIENT = ("192.0.2.1", 5555)
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

sizes = st.integers(0, 300) | st.integers(65_500, 65_600)
kinds = st.sampled_from(["counted", "chunked", "empty"])


def content(n_bytes: int) -> bytes:
    return (b"0\r\n\r\nGET " * (n_bytes // 9 + 1))[:n_bytes]  # looks like an end, and is none


def message(kind: str, n_bytes: list[int]) -> tuple[bytes, bytes]:
    """Write a request with a body made of pieces; give it and the body."""
    pieces = [content(n) for n in n_bytes]
    body = b"".join(pieces)
    if kind == "counted":
        return HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body), body
    if kind == "chunked":
        told = [b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece]
        return CHUNKED + b"".join(told) + b"0\r\nTrailer: t\r\n\r\n", body
    return b"GET /?a=b HTTP/1.1\r\nHost: x\r\n\r\n", b""


def read(incoming: Incoming, sent: bytes, cuts: list[int]) -> list[bytes]:
    """Give the bodies of all requests in `sent`, which comes cut into pieces."""
    bounds, found = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)], []
    for start, end in pairwise(bounds):
        incoming.received += sent[start:end]
        while incoming.advance():
            request = incoming.finish()
            headers = dict(request.headers)
            found.append(request.body.read())
            assert int(headers.get("CONTENT-LENGTH", "0")) == len(found[-1])
            assert "TRANSFER-ENCODING" not in headers
            incoming.forget()
    assert not incoming.received
    return found


@settings(deadline=None)
@given(
    kinds_and_sizes=st.lists(st.tuples(kinds, st.lists(sizes, max_size=3)), max_size=3),
    cuts=st.lists(st.integers(0, 10**6), max_size=12),
)
def test_requests_come_out_whole_and_in_order_however_they_are_cut(kinds_and_sizes, cuts):
    messages = [message(kind, n_bytes) for kind, n_bytes in kinds_and_sizes]
    incoming = Incoming(Config(), CLIENT, MAX_BYTES)
    try:
        found = read(incoming, b"".join(sent for sent, _ in messages), cuts)
    finally:
        incoming.forget()

    assert found == [body for _, body in messages]


def as_gunicorn_reads(sent: bytes) -> bytes:
    """Give the body that gunicorn's own reader finds, up to the trailers, which it also checks."""

    class Request:
        def parse_headers(self, *_: object, **__: object) -> list:
            return []

    return ChunkedReader(Request(), IterUnreader([sent])).read(10**6)


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"1", b"a", b"0", b"\r\n", b"\r", b"\n", b";", b" ", b"x"])))
@example([b"1", b"\r\n", b"x", b"\r\n", b"0", b"\r\n", b"\r\n"])
def test_chunks_that_gunicorn_would_refuse_or_read_otherwise_are_never_accepted(parts):
    sent = b"".join(parts)
    incoming = Incoming(Config(), CLIENT, MAX_BYTES)
    incoming.received += CHUNKED + sent
    try:
        is_whole = incoming.advance()
    except RefusedError:
        is_whole = False
    with closing(incoming.body.file):
        if is_whole:
            assert incoming.finish().body.read() == as_gunicorn_reads(sent)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"Content-Length: 200001\r\n\r\n", 413),
        (CHUNKED + b"30d41\r\n", 413),
        (CHUNKED + b"fffffffffffffff\r\n", 413),
        (CHUNKED + b"1" * 16 + b"\r\n", 400),
        (CHUNKED + b"\r\n", 400),
        (CHUNKED + b"-1\r\n", 400),
        (CHUNKED + b"1_0\r\n", 400),
        (CHUNKED + b"0x1\r\n", 400),
        (CHUNKED + b"2\r\nabc\r\n", 400),
        (CHUNKED + b"0\r\n" + b"T: t\r\n" * 20_000, 431),
        (CHUNKED + b"1\r\na\r\n" * 1_100, 400),
        (b"GET / HTTP/1.1\r\nAuthorization Bearer s3cret\r\n\r\n", 400),
        (b"x" * 65_537, 431),
    ],
)
def test_what_cannot_be_a_request_is_refused_without_telling_its_content(sent, status):
    incoming = Incoming(Config(), CLIENT, MAX_BYTES)
    incoming.received += sent

    with pytest.raises(RefusedError) as told:
        incoming.advance()

    assert told.value.status == status
    assert "s3cret" not in str(told.value)
    incoming.forget()


def test_large_body_waits_in_a_file_and_a_small_one_in_memory():
    incoming = Incoming(Config(), CLIENT, MAX_BYTES)
    for n_bytes, in_memory in ((65_536, True), (65_537, False)):
        incoming.received += HEAD + b"Content-Length: %d\r\n\r\n%s" % (n_bytes, b"x" * n_bytes)
        assert incoming.advance()
        body = incoming.finish().body
        assert isinstance(getattr(body, "_file", body), io.BytesIO) == in_memory
        incoming.forget()


@pytest.mark.parametrize(
    "ends", [b"Content-Length: 3\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_head_that_comes_again_brings_a_request_of_its_own(ends):
    incoming = Incoming(Config(), CLIENT, MAX_BYTES)
    bodies = [b"one", b"two", b"six"]

    found = []
    for body in bodies:
        incoming.received += HEAD + ends
        incoming.received += body if b"3" in ends else b"3\r\n%s\r\n0\r\n\r\n" % body
        assert incoming.advance()
        request = incoming.finish()
        found.append((request.body.read(), request.headers))
        request.force_close()
        incoming.forget()

    assert [body for body, _ in found] == bodies
    assert all(headers == found[0][1] for _, headers in found)


def test_closing_one_request_closes_none_with_the_same_head():
    incoming = Incoming(Config(), CLIENT, MAX_BYTES)
    requests = []
    for _ in range(2):
        incoming.received += b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        assert incoming.advance()
        requests.append(incoming.finish())
        incoming.forget()
        requests[0].force_close()

    assert [request.should_close() for request in requests] == [True, False]


def test_head_that_was_refused_does_not_come_out_as_the_last():
    incoming = Incoming(Config(), CLIENT, MAX_BYTES)
    for _ in range(2):
        incoming.received[:] = b"GET / HTTP/1.1\r\nHost x\r\n\r\n"
        with pytest.raises(RefusedError):
            incoming.advance()
        incoming.forget()
