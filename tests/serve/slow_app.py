"""An app whose answers take as long as a test wants; it tells what has come to it."""

import os
import time

from flask import Flask, jsonify, request

from serve.limits import LimitBody, turn_away

app = Flask(__name__)
app.before_request(turn_away)
app.wsgi_app = LimitBody(app.wsgi_app, 1_000_000)


@app.get("/health")
def health():
    return jsonify(pid=os.getpid())


@app.route("/echo", methods=["GET", "POST"])
def echo():
    """Wait for ?s= seconds; tell how many bytes came, and the first of them."""
    time.sleep(float(request.args.get("s", 0)))
    body = request.get_data()
    return jsonify(n_bytes=len(body), start=body[:20].decode("latin-1"))


@app.post("/file")
def file():
    return jsonify(n_bytes=len(request.files["file"].read()))


@app.get("/large")
def large():
    return b"x" * int(request.args["n"])


@app.get("/broken")
def broken():
    def answer():
        yield b"begun"
        raise RuntimeError("in the midst of an answer")

    return app.response_class(answer())
