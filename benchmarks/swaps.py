"""Whether a swap of models, a damaged one, or any request at all brings the server to a fault."""

import json
import os
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from benchmarks.load import OUR_SETTINGS, row_as_json, serving
from benchmarks.report import Section, make_table, verdict
from contract.artifact import (
    CARD,
    FINAL,
    MANIFEST,
    Manifest,
    Model,
    content_name,
    load_model,
    make_manifest,
    read_manifest,
    sha256,
    write_artifact,
)
from contract.encoding import row_encoder
from contract.rows import to_arrays
from ops.simulate import simulate
from serve.app import create_app
from serve.example import example_row
from serve.metrics import Metrics
from serve.serving import Serving
from serve.settings import Settings
from stages.export import to_onnx

N_SWAPS, N_ANSWERS, N_CLIENTS = 200, 100_000, 8
N_DAMAGES = 1_000
N_REQUESTS = 50_000
SEEDS = (1, 2)
ROUNDING = 1e-3  # of an answer's prediction


def measure_swaps(quick: bool) -> Section:
    """Swap two models under load; each answer must be that of the version it names."""
    n_swaps, n_answers = (4, 400) if quick else (N_SWAPS, N_ANSWERS)
    with TemporaryDirectory(prefix="bench-") as folder:
        final = Path(folder) / "final"
        expected = {}
        for seed in SEEDS:
            model = _write_model(final, seed)
            row = row_encoder(model.manifest.contract)(json.loads(row_as_json()))
            expected[model.manifest.version] = model.predict(row).prediction[0]
        with serving(*OUR_SETTINGS, MODEL_FOLDER=str(final), MODEL_POLL_S="0.05") as server:
            answers, swapped = [], threading.Event()
            asking = [
                threading.Thread(
                    target=_ask, args=(server.port, n_answers // N_CLIENTS, swapped, answers)
                )
                for _ in range(N_CLIENTS)
            ]
            for each in asking:
                each.start()
            for turn in range(n_swaps):
                _write_model(final, SEEDS[turn % 2])
                time.sleep(0.2)
            swapped.set()
            for each in asking:
                each.join()
    n_failed = sum(status != 200 for status, _ in answers)
    told = [answer for status, answer in answers if status == 200]
    n_wrong = sum(abs(each["prediction"] - expected[each["model"]]) > ROUNDING for each in told)
    by_version = Counter(each["model"] for each in told)
    return Section(
        "13 Swaps under load",
        (
            f"{n_swaps} swaps while {N_CLIENTS} clients ask without a pause: {len(answers):,} "
            f"answers, of the two versions {' and '.join(f'{n:,}' for n in by_version.values())}.",
            verdict("answers that are not their version's", n_wrong, 0)
            + "\n"
            + verdict("requests that failed", n_failed, 0),
        ),
    )


def _write_model(folder: Path, seed: int) -> Model:
    """Fit a model on rows of the seed, export it, and give it as it is loaded."""
    plain = read_manifest(FINAL)
    X, y = to_arrays(simulate(500, seed), plain.contract)
    content = to_onnx(LinearRegression().fit(X, y), X.shape[1])
    name = content_name("model", ".onnx", content)
    card = b"# A model to measure with\n"
    fields = {key: getattr(plain, key) for key in Manifest.model_fields if key != "version"}
    fields |= {
        "format": "onnx",
        "model": name,
        "files": {name: sha256(content), CARD: sha256(card)},
    }
    write_artifact(folder, make_manifest(fields), {name: content, CARD: card})
    return load_model(folder)


def _ask(port: int, n_least: int, swapped: threading.Event, answers: list) -> None:
    connection, body, n = HTTPConnection("127.0.0.1", port, timeout=60), row_as_json(), 0
    while n < n_least or not swapped.is_set():
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))
        except OSError:
            answers.append((0, None))
            connection.close()
        n += 1
    connection.close()


def measure_damage(quick: bool) -> Section:
    """Flip a bit of a new artifact, or cut it, and see that the old model stays."""
    n_damages, draw = (20 if quick else N_DAMAGES), np.random.default_rng(1)
    n_loaded = n_silent = 0
    with TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place) / "final"
        _write_model(folder, SEEDS[0])
        serving_model = Serving(folder, Metrics())
        old = serving_model.current.version
        _write_model(folder, SEEDS[1])
        whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != CARD}
        for n in range(n_damages):
            name = str(draw.choice(sorted(whole)))
            (folder / name).write_bytes(_damaged(whole[name], draw))
            serving_model.problem = ""
            serving_model.look()
            n_loaded += serving_model.current.version != old
            n_silent += not serving_model.problem
            (folder / name).write_bytes(whole[name])
            os.utime(folder / MANIFEST, ns=(n, n))  # so that it is looked at anew
    return Section(
        "14 Damaged artifacts",
        (
            f"{n_damages:,} artifacts, each with one bit flipped or its end cut off, in the model "
            "or in its manifest.",
            verdict("damaged models in service", n_loaded, 0)
            + "\n"
            + verdict("damages that /ready does not tell", n_silent, 0),
        ),
    )


def _damaged(content: bytes, draw: np.random.Generator) -> bytes:
    place = int(draw.integers(len(content)))
    if draw.random() < 0.5:
        return content[:place]
    return (
        content[:place]
        + bytes([content[place] ^ (1 << int(draw.integers(8)))])
        + content[place + 1 :]
    )


def measure_requests(quick: bool) -> Section:
    """Send generated requests, good and bad, and count what comes back."""
    n_requests, statuses = (300 if quick else N_REQUESTS), Counter()
    with TemporaryDirectory(prefix="bench-") as folder:
        app = create_app(Settings(prediction_log=f"{folder}/log.db"))
        description = schemathesis.openapi.from_wsgi("/openapi.json", app)
        posts = [
            each.ok() for each in description.get_all_operations() if each.ok().method == "post"
        ]
        kinds = [_described(each, statuses) for each in posts]
        client = app.test_client()
        kinds += [_raw(client, kind, statuses) for kind in ("json", "form", "csv")]
        for kind in kinds:
            n_each = n_requests // len(kinds)
            how = settings(
                max_examples=n_each,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            how(kind)()
        app.extensions["serve"].close()
    rows = [[str(status), n] for status, n in sorted(statuses.items())]
    n_faults = sum(n for status, n in statuses.items() if status >= 500)
    return Section(
        "15 Generated requests",
        (
            f"{statuses.total():,} requests by schemathesis (from /openapi.json, keeping and "
            "breaking it) and Hypothesis (JSON, forms and CSV of any content).",
            make_table(["status", "answers"], rows),
            verdict("answers of 5xx", n_faults, 0),
        ),
    )


def _described(operation, statuses: Counter):
    modes = st.sampled_from(list(schemathesis.GenerationMode))

    @given(case=modes.flatmap(lambda mode: operation.as_strategy(generation_mode=mode)))
    def ask(case: schemathesis.Case) -> None:
        statuses[case.call().status_code] += 1

    return ask


def _raw(client, kind: str, statuses: Counter):
    """Send rows whose fields are the contract's, and whose values may be anything."""
    contract = read_manifest(FINAL).contract
    texts = st.sampled_from(sorted({c for each in contract.features for c in each.categories}))
    cells = st.one_of(st.text(max_size=8), st.integers().map(str), st.floats().map(str), texts)
    values = cells if kind != "json" else st.one_of(cells, st.integers(), st.floats(), st.none())
    changes = st.dictionaries(st.sampled_from([*contract.names(), "other"]), values, max_size=3)
    right = {key: str(v) if kind != "json" else v for key, v in example_row(contract).items()}
    rows = st.lists(changes.map(lambda changed: right | changed), max_size=5)

    @given(rows=rows, noise=st.just(b"") | st.binary(max_size=12))
    def ask(rows: list[dict], noise: bytes) -> None:
        if kind == "json":
            sent = {"data": json.dumps(rows).encode() + noise, "content_type": "application/json"}
        elif kind == "form":
            sent = {"data": rows[0] if rows else {}}
        else:
            names = contract.names()
            lines = [",".join(names), *(",".join(row.get(n, "") for n in names) for row in rows)]
            sent = {"data": "\n".join(lines).encode() + noise, "content_type": "text/csv"}
        path = "/batch_predict" if kind == "csv" else "/predict"
        with client.post(path, **sent) as response:
            response.get_data()
            statuses[response.status_code] += 1

    return ask
