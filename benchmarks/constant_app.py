"""The least that a Flask app can do, to compare the server with: it answers a constant."""

from flask import Flask, request

app = Flask(__name__)


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/predict")
def predict() -> dict[str, float]:
    """Read the JSON, so that the body is paid for here, too."""
    request.get_json()
    return {"prediction": 0.0}
