"""A number for every request, and what it took: the access log and the metrics."""

import logging
import re
import time

from flask import Response, current_app, g, request
from uuid_utils import uuid7

from serve.logs import ACCESS

access = logging.getLogger(ACCESS)

REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


def begin() -> None:
    """Number the request."""
    g.began_s = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else str(uuid7())


def end(response: Response) -> Response:
    """Count and log the answer; of the request only its route is told."""
    seconds = time.perf_counter() - g.began_s
    method, rule, status = request.method, request.url_rule, response.status_code
    route = rule.rule if rule else "(none)"
    current_app.extensions["serve"].metrics.count_request(route, method, status, seconds)
    facts = {
        "request_id": g.request_id,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(1000 * seconds, 2),
        "client": request.remote_addr,
    }
    access.info("answered", extra={"facts": facts})
    response.headers["X-Request-ID"] = g.request_id
    return response
