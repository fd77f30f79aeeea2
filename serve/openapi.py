"""The API described from the contract, as OpenAPI 3.1."""

from typing import Any

from contract.features import Contract, Feature
from serve.bodies import CSV, IDS, JSON, MULTIPART, ON_ERROR
from serve.example import example_row

PAGE = "text/html"


def describe(contract: Contract, version: str) -> dict[str, Any]:
    """Give the description of all routes; `version` is the model's."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Prediction of {contract.target.name}",
            "version": version,
            "description": contract.target.description,
        },
        "paths": {
            "/predict": {"get": _page("The form"), "post": _predict()},
            "/batch_predict": {"get": _page("The upload page"), "post": _predict_batch()},
            "/example.csv": {"get": _text("A small table to try /batch_predict with", CSV)},
            "/model": {"get": _get("The model in service: contract, scores, interval", "Model")},
            "/health": {"get": _get("Whether the process answers", "Health")},
            "/ready": {"get": _ready()},
            "/monitor": {"get": _monitor()},
            "/metrics": {"get": _metrics()},
        },
        "components": {"schemas": _schemas(contract), "responses": _errors()},
    }


def row_schema(contract: Contract) -> dict[str, Any]:
    """Give the JSON schema of one row."""
    return {
        "type": "object",
        "properties": {feature.name: _value_schema(feature) for feature in contract.features},
        "required": [feature.name for feature in contract.features if not feature.missing],
        "additionalProperties": False,
        "examples": [example_row(contract)],
    }


def _value_schema(feature: Feature) -> dict[str, Any]:
    if feature.range is None:
        values = [*feature.categories, *([None] if feature.missing else [])]
        return {"enum": values, "description": feature.description}
    told = f"{feature.description} ({feature.domain})" if feature.description else feature.domain
    kind = "integer" if feature.dtype == "int" else "number"
    low, high = (int(end) if end.is_integer() else end for end in feature.range)
    types = [kind, "null"] if feature.missing else kind
    return {"type": types, "minimum": low, "maximum": high, "description": told}


def _schemas(contract: Contract) -> dict[str, Any]:
    number, text = {"type": "number"}, {"type": "string"}
    maybe_text = {"type": ["string", "null"]}
    prediction = {
        "prediction": number,
        "interval": {"type": "array", "items": number, "minItems": 2, "maxItems": 2},
        "unit": text,
        "model": text | {"description": "the version that made it"},
        "id": maybe_text | {"description": "of its row in the prediction log"},
    }
    problem = {
        "row": {"type": ["integer", "null"]},
        "field": text,
        "value": {},
        "reason": text,
    }
    return {
        "Row": row_schema(contract),
        "Rows": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}, "minItems": 1},
        "Prediction": _object(prediction),
        "Predictions": _object(
            {
                "predictions": {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/Prediction"},
                }
            }
        ),
        "Problems": _object(
            {
                "errors": {"type": "array", "items": _object(problem)},
                "total": {"type": "integer", "minimum": 1},
            }
        ),
        "Error": _object({"error": text}),
        "Model": {"type": "object", "required": ["version", "contract", "metrics"]},
        "Health": _object({"status": {"const": "ok"}}),
        "Monitor": {"type": "object", "required": ["report", "live"]},
        "Ready": _object({"ready": {"type": "boolean"}, "model": text, "problem": maybe_text}),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _content(name: str) -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _errors() -> dict[str, Any]:
    """Give the answers that several routes share."""
    told = {
        "Malformed": "The request cannot be read",
        "Unauthorized": "The route needs its token",
        "Foreign": "Sent by a page of another site",
        "TooSlow": "The body did not come in time",
        "TooLarge": "The body, its unpacked content or its number of rows is over the limit",
        "UnknownType": "The content type is not understood",
        "TooMany": "Over the limit of requests by client",
        "Unavailable": "Overloaded, or the prediction log cannot be written; see Retry-After",
    }
    shared = {
        name: {"description": text, "content": _content("Error") | {PAGE: {}}}
        for name, text in told.items()
    }
    shared["Problems"] = {
        "description": "Values outside the contract, all of them at once",
        "content": _content("Problems") | {PAGE: {}},
    }
    return shared


def _responses(ok: dict[str, Any], **by_status: str) -> dict[str, Any]:
    shared = {"400": "Malformed", "503": "Unavailable"} | {
        status.removeprefix("s"): name for status, name in by_status.items()
    }
    refs = {
        status: {"$ref": f"#/components/responses/{name}"}
        for status, name in sorted(shared.items())
    }
    return {"200": ok} | refs


OF_A_BODY = {
    "s403": "Foreign",
    "s408": "TooSlow",
    "s413": "TooLarge",
    "s415": "UnknownType",
    "s422": "Problems",
    "s429": "TooMany",
}


def _predict() -> dict[str, Any]:
    one, many = ({"$ref": f"#/components/schemas/{name}"} for name in ("Row", "Rows"))
    of_one, of_many = (
        {"$ref": f"#/components/schemas/{name}"} for name in ("Prediction", "Predictions")
    )
    return {
        "summary": "Predict one row, or a list of rows",
        "description": "Values are numbers and text of JSON. A permitted gap is null or left out.",
        "requestBody": {"required": True, "content": {JSON: {"schema": {"oneOf": [one, many]}}}},
        "responses": _responses(
            {
                "description": "Predictions with their intervals, already logged",
                "content": {JSON: {"schema": {"oneOf": [of_one, of_many]}}},
            },
            **OF_A_BODY,
        ),
    }


def _predict_batch() -> dict[str, Any]:
    form = {
        "type": "object",
        "properties": {
            "file": {"type": "string", "contentMediaType": "text/csv"},
            "on_error": {"enum": ON_ERROR},
            "ids": {"enum": IDS},
        },
        "required": ["file"],
    }
    return {
        "summary": "Predict the rows of a CSV",
        "description": "Comma, semicolon or tab; UTF-8; may be gzipped. The answer holds the rows "
        "as sent, with prediction, lower and upper. on_error=skip leaves out wrong rows. ids=on "
        "adds prediction_id, by which the truth can be attached to the prediction log later.",
        "parameters": [
            {"name": "on_error", "in": "query", "schema": {"enum": ON_ERROR}},
            {"name": "ids", "in": "query", "schema": {"enum": IDS}},
        ],
        "requestBody": {
            "required": True,
            "content": {
                MULTIPART: {"schema": form},
                CSV: {"schema": {"type": "string"}},
            },
        },
        "responses": _responses({"description": "The table", "content": {CSV: {}}}, **OF_A_BODY),
    }


def _get(summary: str, name: str) -> dict[str, Any]:
    ok = {"description": summary, "content": _content(name) | {PAGE: {}}}
    return {"summary": summary, "responses": _responses(ok)}


def _ready() -> dict[str, Any]:
    told = _get("Which model is in service", "Ready")
    unready = {"description": "The prediction log cannot be written", "content": _content("Ready")}
    told["responses"]["503"] = unready
    return told


def _monitor() -> dict[str, Any]:
    told = _get("The last report of the monitor, and the prediction log at this moment", "Monitor")
    told["responses"]["401"] = {"$ref": "#/components/responses/Unauthorized"}
    return told


def _page(summary: str) -> dict[str, Any]:
    return _text(summary, PAGE)


def _text(summary: str, media_type: str) -> dict[str, Any]:
    ok = {"description": summary, "content": {media_type: {}}}
    return {"summary": summary, "responses": _responses(ok)}


def _metrics() -> dict[str, Any]:
    ok = {"description": "Prometheus' text format", "content": {"text/plain": {}}}
    return {
        "summary": "Counts of requests, rows and rejected values",
        "responses": _responses(ok, s401="Unauthorized"),
    }
