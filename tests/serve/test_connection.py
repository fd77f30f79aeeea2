"""What gunicorn does with a client's socket, while the main loop may poll it."""

import socket
from collections.abc import Iterator

import pytest
from gunicorn.util import close_graceful

from serve.connection import Outgoing


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give our end of a connection, and the client's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)
        yield ours, theirs


def test_head_leaves_in_one_segment_with_what_follows(pair):
    ours, theirs = pair
    out = Outgoing(ours)

    out.sendall(b"head ")
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    out.sendall(b"body ")
    assert theirs.recv(100) == b"head body "
    out.sendall(b"more")
    assert theirs.recv(100) == b"more"
    out.flush()
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_head_that_no_body_follows_leaves_by_itself(pair):
    ours, theirs = pair
    out = Outgoing(ours)

    out.sendall(b"head")
    out.flush()

    assert theirs.recv(100) == b"head"


def test_head_leaves_before_the_socket_is_used_otherwise(pair, tmp_path):
    ours, theirs = pair
    out, path = Outgoing(ours), tmp_path / "file"
    path.write_bytes(b" file")

    out.sendall(b"head")
    with path.open("rb") as file:
        out.sendfile(file)
    ours.shutdown(socket.SHUT_WR)

    assert b"".join(iter(lambda: theirs.recv(100), b"")) == b"head file"


def test_answer_that_breaks_off_leaves_the_socket_to_the_loop(pair):
    """Its number, used again by the next client, would still be in the poller."""
    ours, theirs = pair
    out = Outgoing(ours)

    out.sendall(b"head")
    theirs.shutdown(socket.SHUT_WR)
    close_graceful(out)

    assert ours.fileno() >= 0
    assert b"".join(iter(lambda: theirs.recv(100), b"")) == b"head"
