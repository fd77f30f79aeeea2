"""The routes: each checks, predicts, logs, answers."""

import logging
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

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
from pydantic_core import to_json
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from contract.artifact import Predictions
from contract.predictions.file import LogError
from serve.answer import SIGNIFICANT_DIGITS
from serve.batch import read_batch
from serve.bodies import (
    CSV,
    FORMS,
    JSON,
    file_limits,
    form_fields,
    json_body,
    on_error,
    uploaded_file,
    with_ids,
)
from serve.errors import CheckError, Problem, count_rejected, wants_page
from serve.example import example_csv
from serve.logged import as_json
from serve.observe import BEGAN_S, ID
from serve.openapi import describe
from serve.safety import guarded, public
from serve.serving import InService

logger = logging.getLogger(__name__)

routes = Blueprint("routes", __name__)


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
    sent, current = json_body(), _in_service()
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


def _predict_form() -> Response | str | tuple[str, int]:
    g.source = "form"
    current, typed = _in_service(), form_fields()
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
    of_row = current.privacy.of_row
    ids = _log(current, [to_json(of_row(row)).decode() for row in rows], told)
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


def _log_table(current: InService, values: np.ndarray, told: Predictions) -> list[str | None]:
    return _log(current, as_json(values, current.contract, current.privacy).to_pylist(), told)


def _log(current: InService, features: list[str], told: Predictions) -> list[str | None]:
    """Write what is about to be answered; gives ids, or none while the log is off."""
    parts = _parts()
    parts.metrics.count_rows(g.source, len(features))
    if parts.log is None:
        return [None] * len(features)
    parts.log.describe(current.version, current.contract_json)
    environ = request.environ
    return parts.log.append(
        features,
        told,
        model=current.version,
        source=g.source,
        request_id=environ[ID],
        latency_ms=1000 * (time.perf_counter() - environ[BEGAN_S]),
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

    Answers the rows as sent with prediction, lower and upper, with ids=on also prediction_id. With
    wrong rows nothing is predicted and the answer is 422, unless on_error=skip: then they come back
    with an `error`.
    """
    g.source = "batch"
    current, add_ids = _in_service(), with_ids()
    batch = read_batch(uploaded_file(), current.check, file_limits(), on_error())
    count_rejected(batch.counts)
    chunks = batch.answer(current.model, partial(_log_table, current), add_ids)
    first = next(chunks)  # so that a log that fails is told by the status
    answer = stream_with_context(chain([first], _or_break_off(chunks)))
    response = Response(answer, content_type=f"{CSV}; charset=utf-8")
    response.headers["Content-Disposition"] = "attachment; filename=predictions.csv"
    response.call_on_close(batch.close)
    return response


def _or_break_off(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Go on with an answer that has begun: only the connection can still tell of a failure."""
    try:
        yield from chunks
    except LogError as error:
        logger.error("an answer breaks off, as its next rows cannot be logged: %s", error)
        raise ConnectionAbortedError from error


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
def ready() -> tuple[Response, int]:
    """Say which model is in service, and what keeps a newer one, or all predictions, from it.

    A database that is behind keeps nobody from an answer.
    """
    serving, log, lag = _parts().serving, _parts().log, _parts().lag()
    # another worker's disk is full as well, and who is not ready is asked nothing: it has to try
    is_ready = log is None or log.is_writable()
    problem = serving.problem or None if is_ready else "The prediction log cannot be written."
    told = {"ready": is_ready, "model": serving.current.version, "problem": problem}
    if lag is not None:
        oldest_s = lag.oldest_s and round(lag.oldest_s, 1)
        told["undelivered"] = {"rows": lag.n_rows, "oldest_s": oldest_s}  # null: cannot be known
    return jsonify(told), 200 if is_ready else 503


@routes.get("/metrics")
@guarded("metrics_token")
def metrics() -> Response:
    """Give the counts of all workers in Prometheus' text format."""
    parts = _parts()
    text = parts.metrics.text(parts.lag(), parts.n_aside())
    return Response(text, content_type="text/plain; version=0.0.4")


@routes.get("/monitor")
@guarded("monitor_token", is_page=True)
def monitor() -> Response | str:
    """Show the monitor's last report, and what the prediction log holds now."""
    shown = _parts().monitor.look()
    if wants_page():
        return render_template("monitor.html", shown=shown)
    return Response(shown.model_dump_json(), content_type=JSON)


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
