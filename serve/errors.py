"""What a client, or whoever starts the server, did wrong; each with its status and one sentence."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, g, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException

from contract.predictions.file import LogError

RETRY_AFTER_S = 5  # within about this time, log and disk recover by themselves


class ServeError(ValueError):
    """The request, or a setting, cannot be used; the message is meant for its sender."""

    status = 400


@dataclass(frozen=True)
class Problem:
    """One value outside the contract."""

    field: str
    value: Any  # as sent
    reason: str  # in words
    rule: str  # which rule, in one word; counted by the metrics and the log
    row: int | None = None  # the place in a JSON list, from 0; the line of a file


class UploadError(ServeError):
    """A file is no table that can be read."""


class TooLargeError(ServeError):
    """More came than the settings allow."""

    status = 413


class StorageError(ServeError):
    """The server has no room for what it has to keep while it answers."""

    status = 503


class CheckError(ServeError):
    """Values outside the contract; `total` and `counts` know those not listed, too."""

    status = 422

    def __init__(
        self,
        problems: list[Problem],
        total: int | None = None,
        counts: Mapping[tuple[str, str], int] | None = None,
    ):
        self.problems = problems
        self.total = len(problems) if total is None else total
        self.counts = counts or Counter((each.field, each.rule) for each in problems)
        super().__init__("; ".join(f"{each.field}: {each.reason}" for each in problems[:10]))

    def told(self) -> dict[str, Any]:
        """Give the answer's body: where, what came, and what was expected."""
        keys = ("row", "field", "value", "reason")
        errors = [{key: asdict(each)[key] for key in keys} for each in self.problems]
        return {"errors": errors, "total": self.total}


def wants_page() -> bool:
    """Say whether the client is a browser: it names text/html before JSON, and sent no JSON."""
    best = request.accept_mimetypes.best_match(["application/json", "text/html"])
    return best == "text/html" and request.mimetype != "application/json"


def answer_errors(app: Flask) -> None:
    """Let every error become JSON, or a page for a browser; none shows how the server works."""
    app.register_error_handler(ServeError, _answer_serve_error)
    app.register_error_handler(LogError, _answer_log_error)
    app.register_error_handler(HTTPException, _answer_http_error)


def _answer_serve_error(error: ServeError) -> Response:
    if not isinstance(error, CheckError):
        return _answer(str(error), error.status)
    count_rejected(error.counts)
    return _answer(str(error), error.status, error.told())


def count_rejected(counts: Mapping[tuple[str, str], int]) -> None:
    """Let the metrics and the log know which rules were broken, by which fields; no values."""
    parts = current_app.extensions["serve"]
    for (_, rule), n in counts.items():
        parts.metrics.count_problems(g.source, rule, n)
    if counts and parts.log is not None:
        parts.log.reject(g.source, counts)


def _answer_log_error(_: LogError) -> Response:  # the log has said what is wrong, once
    told = "The prediction log cannot be written, so nothing is predicted. Try again later."
    return _answer(told, 503)


def _answer_http_error(error: HTTPException) -> Response:
    response = _answer(error.description or error.name, error.code or 500)
    for name, value in error.get_headers():
        if name in {"Allow", "Retry-After", "WWW-Authenticate"}:
            response.headers[name] = value
    return response


def _answer(message: str, status: int, body: dict[str, Any] | None = None) -> Response:
    if wants_page():
        page = render_template("error.html", status=status, message=message, **(body or {}))
        response = make_response(page, status)
    else:
        response = make_response(jsonify(body or {"error": message}), status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response
