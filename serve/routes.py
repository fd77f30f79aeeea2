"""The routes: each checks, predicts, logs, answers."""

import io
import time
from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from flask import (
    Blueprint,
    Response,
    current_app,
    g,
    jsonify,
    render_template,
    request,
    stream_with_context,
)
from pydantic_core import from_json, to_json
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from contract.artifact import Predictions
from serve.answer import SIGNIFICANT_DIGITS
from serve.batch import read_batch
from serve.errors import CheckError, Problem, ServeError, count_rejected, wants_page
from serve.example import example_csv
from serve.openapi import describe
from serve.safety import guarded, public
from serve.serving import InService
from serve.upload import Limits

routes = Blueprint("routes", __name__)

JSON = "application/json"
CSV = "text/csv"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
ON_ERROR = ("refuse", "skip")


@routes.get("/")
@public
def index() -> str:
    """Say what this is, and which model is in service."""
    return render_template("index.html")


@routes.get("/predict")
@public
def predict_form() -> str:
    """Show the form, made from the contract."""
    return render_template("predict.html", values={}, problems={}, answer=None)


@routes.post("/predict")
@public
def predict() -> Response | str | tuple[str, int]:
    """Predict one row, sent as a form or as JSON, or a JSON list of rows.

    JSON answers {"prediction", "interval", "unit", "model", "id"}, for a list {"predictions"} with
    one such object a row; the form a page. Values outside the contract: 422, all of them at once.
    """
    if request.mimetype == JSON:
        return _predict_json()
    if request.mimetype in FORMS:
        return _predict_form()
    raise UnsupportedMediaType(
        f"Content-Type is {request.mimetype or 'not given'}, expected {JSON} or a form."
    )


def _predict_json() -> Response:
    g.source = "api"
    sent, current = _json_body(), _in_service()
    if isinstance(sent, list):
        return _as_json({"predictions": _answer(current, _check_list(sent, current))})
    return _as_json(_answer(current, [current.check.json_row(sent)])[0])


def _check_list(sent: list, current: InService) -> list[dict[str, Any]]:
    limit = _parts().settings.max_json_rows
    if len(sent) > limit:
        raise RequestEntityTooLarge(
            f"{len(sent):,} rows came, expected {limit:,} or fewer. Send more as CSV to "
            "/batch_predict."
        )
    if not sent:
        raise CheckError([Problem("", sent, "expected one row or more", "missing")])
    return current.check.json_rows(sent)


def _json_body() -> Any:
    limit = _parts().settings.max_json_bytes
    body = b"" if (request.content_length or 0) > limit else request.stream.read(limit + 1)
    if (request.content_length or len(body)) > limit:
        raise RequestEntityTooLarge(f"The JSON is larger than {limit:,} bytes.")
    try:
        return from_json(body)
    except ValueError as error:
        raise ServeError(f"The body is no JSON: {error}.") from error


def _predict_form() -> Response | str | tuple[str, int]:
    g.source = "form"
    current, typed = _in_service(), request.form.to_dict()
    try:
        answer = _answer(current, [current.check.text_row(typed)])[0]
    except CheckError as error:
        if not wants_page():
            raise
        count_rejected(error.counts)
        problems = {each.field: each.reason for each in error.problems}
        return render_template("predict.html", values=typed, problems=problems, answer=None), 422
    if wants_page():
        return render_template("predict.html", values=typed, problems={}, answer=answer)
    return _as_json(answer)


def _as_json(answer: dict[str, Any]) -> Response:
    return Response(to_json(answer), content_type=JSON)  # a fifth of jsonify's time


def _answer(current: InService, rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Predict checked rows and log them; what this gives has been committed."""
    X = np.concatenate([current.encode_row(row) for row in rows])
    told = current.model.predict(X)
    ids = _log(current, [to_json(row).decode() for row in rows], told)
    unit, version = current.contract.target.unit, current.version
    each = zip(*map(_rounded, (told.prediction, told.lower, told.upper)), ids, strict=True)
    return [
        {
            "prediction": prediction,
            "interval": [lower, upper],
            "unit": unit,
            "model": version,
            "id": row_id,
        }
        for prediction, lower, upper, row_id in each
    ]


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values.tolist()]


def _log(current: InService, features: list[str], told: Predictions) -> list[str | None]:
    """Write what is about to be answered; gives ids, or none while the log is off."""
    parts = _parts()
    parts.metrics.count_rows(g.source, len(features))
    if parts.log is None:
        return [None] * len(features)
    return parts.log.append(
        features,
        told,
        model=current.version,
        source=g.source,
        request_id=g.request_id,
        latency_ms=1000 * (time.perf_counter() - g.began_s),
    )


@routes.get("/batch_predict")
@public
def batch_form() -> str:
    """Show the page that takes a file."""
    return render_template("batch.html")


@routes.post("/batch_predict")
@public
def predict_batch() -> Response:
    """Predict a CSV, sent as the form's `file` or as the body.

    Answers the rows as sent with prediction, lower and upper. With wrong rows nothing is predicted
    and the answer is 422, unless on_error=skip: then they come back with an `error`.
    """
    g.source = "batch"
    current, on_error = _in_service(), request.values.get("on_error", "refuse")
    if on_error not in ON_ERROR:
        raise ServeError(f"on_error is {on_error!r}, expected one of {', '.join(ON_ERROR)}.")
    batch = read_batch(_uploaded(), current.check, _limits(), on_error)
    count_rejected(batch.counts)
    chunks = batch.answer(current.model, partial(_log, current))
    first = next(chunks)  # so that a log that fails is told by the status
    answer = stream_with_context(chain([first], chunks))
    response = Response(answer, content_type=f"{CSV}; charset=utf-8")
    response.headers["Content-Disposition"] = "attachment; filename=predictions.csv"
    response.call_on_close(batch.close)
    return response


def _limits() -> Limits:
    settings = _parts().settings
    return Limits(settings.max_unpacked_bytes, settings.max_columns)


def _uploaded() -> BinaryIO:
    if request.mimetype == CSV:
        return request.stream
    if request.mimetype == "multipart/form-data":
        if "file" in request.form:  # a program may send it without a name
            return io.BytesIO(request.form["file"].encode())
        if "file" not in request.files:
            raise ServeError("The form has no field `file`, expected a CSV there.")
        return request.files["file"].stream
    raise UnsupportedMediaType(
        f"Content-Type is {request.mimetype or 'not given'}, expected {CSV} or multipart/form-data."
    )


@routes.get("/example.csv")
@public
def example() -> Response:
    """Give a small table that fits the contract."""
    return Response(example_csv(_in_service().contract), content_type=f"{CSV}; charset=utf-8")


@routes.get("/model")
@public
def model() -> Response | str:
    """Show the model card; to a program, model.json."""
    if wants_page():
        return render_template("model.html")
    return jsonify(_in_service().model.manifest.model_dump(mode="json"))


@routes.get("/health")
@public
def health() -> Response:
    """Say that this process answers."""
    return jsonify(status="ok")


@routes.get("/ready")
@public
def ready() -> Response:
    """Say which model is in service, and why a newer one on disk may not be."""
    serving = _parts().serving
    return jsonify(ready=True, model=serving.current.version, problem=serving.problem or None)


@routes.get("/metrics")
@guarded("metrics_token")
def metrics() -> Response:
    """Give the counts of all workers in Prometheus' text format."""
    return Response(_parts().metrics.text(), content_type="text/plain; version=0.0.4")


@routes.get("/openapi.json")
@public
def openapi() -> Response:
    """Describe this API, made from the contract of the model in service."""
    return jsonify(_description())


@routes.get("/docs")
@public
def docs() -> str:
    """Show the same description as a page."""
    return render_template("docs.html", openapi=_description())


def _description() -> dict[str, Any]:
    return describe(_in_service().contract, _in_service().version)


def _parts() -> Any:
    return current_app.extensions["serve"]


def _in_service() -> InService:
    return _parts().serving.current
