"""What a request brings: JSON, the fields of a form, a file; each within its limits."""

import io
import json
from collections import Counter
from typing import Any, BinaryIO, get_args

from flask import current_app, request
from pydantic_core import from_json
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from serve.batch import OnError
from serve.check import shown
from serve.errors import ServeError
from serve.settings import Settings
from serve.upload import Limits

JSON = "application/json"
CSV = "text/csv"
URLENCODED, MULTIPART = FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
ON_ERROR = list(get_args(OnError))
IDS = ["off", "on"]


def json_body() -> Any:
    text = _small_body()
    try:
        sent = from_json(text)
    except ValueError as error:
        raise ServeError(f"The body is no JSON in UTF-8: {error}.") from error
    rows = [row for row in (sent if isinstance(sent, list) else [sent]) if isinstance(row, dict)]
    if text.count(b":") > sum(map(len, rows)):  # a colon in a text, or a key twice
        _expect_no_key_twice(text)
    return sent


def _expect_no_key_twice(text: bytes) -> None:
    """Raise ServeError where an object has a key twice, of which from_json takes the last."""

    def expect_once(pairs: list[tuple[str, Any]]) -> None:
        keys = Counter(key for key, _ in pairs)
        if len(keys) < len(pairs):
            twice = shown(keys.most_common(1)[0][0])
            raise ServeError(f"The body has the key {twice} twice, expected it once.")

    json.loads(text, object_pairs_hook=expect_once)


def form_fields() -> dict[str, str]:
    """Give the form's fields; Flask limits those of multipart forms alone."""
    settings = _settings()
    if request.mimetype == URLENCODED and _small_body().count(b"&") >= settings.max_columns:
        raise RequestEntityTooLarge(
            f"The form has over {settings.max_columns:,} fields, expected those of the contract."
        )
    fields = dict(request.form.lists())
    if twice := next((name for name, values in fields.items() if len(values) > 1), None):
        raise ServeError(f"The form has the field {shown(twice)} twice, expected it once.")
    return {name: values[0] for name, values in fields.items()}


def _small_body() -> bytes:
    """Give the body of a single request; that of a form stays there for `request.form`."""
    asked, limit = request._get_current_object(), _settings().max_json_bytes
    n_bytes = asked.content_length
    if (n_bytes or 0) > limit:
        raise RequestEntityTooLarge(f"The body has {n_bytes:,} bytes, expected {limit:,} or fewer.")
    if n_bytes is None or asked.mimetype in FORMS:
        return asked.get_data()
    return asked.environ["wsgi.input"].read(n_bytes)  # in a tenth of the time


def uploaded_file() -> BinaryIO:
    if request.mimetype == CSV:
        return request.stream
    if request.mimetype == MULTIPART:
        if "file" in request.form:  # a program may send it without a name
            return io.BytesIO(request.form["file"].encode())
        if "file" not in request.files:
            raise ServeError("The form has no field `file`, expected a CSV there.")
        return request.files["file"].stream
    raise UnsupportedMediaType(
        f"Content-Type is {request.mimetype or 'not given'}, expected {CSV} or multipart/form-data."
    )


def on_error() -> OnError:
    return _choice("on_error", ON_ERROR)


def with_ids() -> bool:
    return _choice("ids", IDS) == "on"


def _choice(name: str, choices: list[str]) -> Any:
    """Give what the query or the form chooses, the first if they do not say."""
    sent = set(request.args.getlist(name))
    if request.mimetype == MULTIPART:
        sent |= set(request.form.getlist(name))
    if not sent:
        return choices[0]
    if len(sent) > 1 or not sent <= set(choices):
        told = " and ".join(sorted(map(shown, sent)))
        raise ServeError(f"{name} is {told}, expected one of {', '.join(choices)}.")
    return sent.pop()


def file_limits() -> Limits:
    settings = _settings()
    return Limits(settings.max_unpacked_bytes, settings.max_columns)


def _settings() -> Settings:
    return current_app.extensions["serve"].settings
