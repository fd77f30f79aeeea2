"""No body is cut silently, whatever server is around the app."""

import io

import pytest
from flask import Flask, request
from werkzeug.test import EnvironBuilder, run_wsgi_app

from serve.limits import REFUSED, LimitBody, turn_away

MAX_BYTES = 100
FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%s\r\n--b--\r\n'
MULTIPART = "multipart/form-data; boundary=b"


@pytest.fixture
def app() -> Flask:
    made = Flask(__name__)
    made.before_request(turn_away)
    made.wsgi_app = LimitBody(made.wsgi_app, MAX_BYTES)

    @made.post("/data")
    def data() -> str:
        return str(len(request.get_data()))

    @made.post("/pieces")
    def pieces() -> str:
        return str(sum(map(len, iter(lambda: request.stream.read(7), b""))))

    @made.post("/lines")
    def lines() -> str:
        return str(sum(map(len, request.stream)))

    @made.post("/file")
    def file() -> str:
        return str(len(request.files["file"].read()))

    return made


def post(app: Flask, path: str, body: bytes, has_length: bool, **environ: object) -> tuple:
    """Ask the app as a server does that ends the body itself, such as gunicorn."""
    builder = EnvironBuilder(path, method="POST")
    asked = builder.get_environ() | {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
    asked["CONTENT_TYPE"] = MULTIPART
    if has_length:
        asked["CONTENT_LENGTH"] = str(len(body))
    else:
        asked.pop("CONTENT_LENGTH", None)
        asked["HTTP_TRANSFER_ENCODING"] = "chunked"
    builder.close()
    answer, status, headers = run_wsgi_app(app, asked | environ, buffered=True)
    return status[:3], b"".join(answer), headers


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("path", ["/data", "/pieces", "/lines", "/file"])
def test_body_up_to_the_limit_is_read_and_a_larger_one_is_413(path, has_length, app):
    n_frame = len(FORM % b"") if path == "/file" else 0
    for n_bytes, expected in ((MAX_BYTES, "200"), (MAX_BYTES + 1, "413"), (10**6, "413")):
        content = b"x" * (n_bytes - n_frame)
        body = FORM % content if path == "/file" else content
        status, answer, _ = post(app, path, body, has_length)
        assert status == expected
        assert status == "413" or answer == str(len(content)).encode()


@pytest.mark.parametrize("status", [400, 408, 413, 503])
def test_request_that_the_worker_refused_is_answered_with_its_status(status, app):
    told, answer, headers = post(app, "/data", b"", True, **{REFUSED: (status, "It was too much.")})

    assert told == str(status)
    assert b"It was too much." in answer
    assert ("Retry-After" in headers) == (status == 503)
    assert post(app, "/data", b"abc", True, **{REFUSED: None})[:2] == ("200", b"3")
