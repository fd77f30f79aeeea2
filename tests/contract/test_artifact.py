"""The exported folder: always whole, however its writer ends, and refused once changed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

from contract import artifact
from contract.artifact import (
    CARD,
    MANIFEST,
    TRAIN_PROFILE,
    ArtifactError,
    Manifest,
    content_name,
    load_model,
    load_train_profile,
    make_manifest,
    read_manifest,
    sha256,
    with_interval,
    write_artifact,
)
from contract.profiler import axes_of, make_profile
from stages.export import to_onnx, to_skops
from tests.example import CONTRACT, ROOT, make_rows

X = np.array([[80, 3, 0, 2], [20, 1, 1, 0]], dtype=np.float32)
N_KILLS = 100
WRITER = """
import os, sys
from pathlib import Path
from tests.contract.test_artifact import write_version

folder = Path(sys.argv[1])
sys.stdout.write("ready\\n")
sys.stdout.flush()
for line in sys.stdin:  # a fork costs no imports
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        contents = {version: Path(f"{version}.onnx").read_bytes() for version in (1, 2)}
        while True:
            for version in (2, 1):
                write_version(folder, version, contents[version])
    sys.stdout.write(f"{child}\\n")
    sys.stdout.flush()
    os.waitpid(child, 0)
"""


def fields(model: str, content: bytes, card: bytes = b"card\n", **changes) -> dict:
    return {
        "format": Path(model).suffix[1:],
        "model": model,
        "files": {model: sha256(content), CARD: sha256(card)},
        "contract": CONTRACT,
        "clip": True,
        "interval": {"level": 0.9, "half_width": 0.5},
        "candidate": "linear",
        "score": "r2_score",
        "metrics": {"r2_score": 0.9, "max_error": 1e-05},
        "test_rows_sha256": "0" * 64,
        "libraries": {"numpy": "2"},
    } | changes


def constant(value: float) -> LinearRegression:
    """Fit a model that predicts one number, whatever comes in."""
    return LinearRegression().fit(np.eye(4, dtype=np.float64), np.full(4, value))


def write(folder: Path, suffix: str, content: bytes, card: bytes = b"card\n", **changes) -> str:
    """Write an artifact as `export` does; give its version."""
    model = content_name("model", suffix, content)
    manifest = make_manifest(fields(model, content, card, **changes))
    write_artifact(folder, manifest, {model: content, CARD: card})
    return manifest.version


def write_version(folder: Path, version: int, content: bytes) -> str:
    """Write one of two models, with a card of its own; `candidate` says what it predicts."""
    return write(folder, ".onnx", content, f"card {version}\n".encode(), candidate=str(version))


@pytest.fixture(scope="module")
def contents() -> dict[int, bytes]:
    return {version: to_onnx(constant(version), 4) for version in (1, 2)}


@pytest.fixture
def folder(tmp_path, contents) -> Path:
    """A folder that holds version 1."""
    write_version(tmp_path / "final", 1, contents[1])
    return tmp_path / "final"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("suffix", "to_bytes"), [(".onnx", to_onnx), (".skops", to_skops)])
def test_model_comes_back_with_its_contract_and_the_same_predictions(suffix, to_bytes, tmp_path):
    model = DecisionTreeRegressor(max_depth=3, random_state=0).fit(X.astype(float), [700.0, 90.5])
    content = to_bytes(model, 4) if suffix == ".onnx" else to_bytes(model)

    version = write(tmp_path, suffix, content)
    loaded = load_model(tmp_path)

    assert loaded.manifest == read_manifest(tmp_path)
    assert loaded.manifest.version == version
    assert loaded.manifest.contract == CONTRACT
    assert loaded.predict(X).prediction.tolist() == [700.0, 90.5]
    assert loaded.predict(X[:1]).prediction.tolist() == [700.0]
    assert names(tmp_path) == {MANIFEST, CARD, loaded.manifest.model}


def test_interval_lies_round_the_prediction_and_in_the_range_of_the_target():
    told = with_interval(np.array([[-0.2], [0.4], [1.7]]), 0.5, (0, 1))

    assert told.prediction.tolist() == [0, 0.4, 1]
    np.testing.assert_allclose(told.lower, [0, 0, 1])
    np.testing.assert_allclose(told.upper, [0.3, 0.9, 1])


@given(
    y_pred=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
    width=st.floats(0, 1e6),
    bounds=st.none() | st.just((-10.0, 10.0)),
)
def test_interval_holds_its_prediction(y_pred, width, bounds):
    told = with_interval(np.array(y_pred), width, bounds)

    assert (told.lower <= told.prediction).all()
    assert (told.prediction <= told.upper).all()
    if bounds:
        assert (told.lower >= bounds[0]).all()
        assert (told.upper <= bounds[1]).all()
    else:
        assert told.prediction.tolist() == y_pred


def test_predictions_are_clipped_where_the_manifest_says_so(tmp_path):
    content = to_onnx(constant(-3), 4)

    write(tmp_path, ".onnx", content, clip=True)
    assert load_model(tmp_path).predict(X).lower.tolist() == [0, 0]
    write(tmp_path, ".onnx", content, clip=False)
    assert load_model(tmp_path).predict(X).lower.tolist() == pytest.approx([-3.5, -3.5])


def test_version_follows_the_content_and_nothing_else(contents, tmp_path):
    def version(**changes) -> str:
        return make_manifest(fields("model.onnx", contents[1], **changes)).version

    assert version() == version()
    assert write_version(tmp_path / "a", 1, contents[1]) == write_version(
        tmp_path / "b", 1, contents[1]
    )
    changed = [
        version(clip=False),
        version(candidate="ridge"),
        version(card=b"other"),
        version(interval={"level": 0.9, "half_width": 0.6}),
        version(metrics={"r2_score": 0.91}),
        version(libraries={"numpy": "3"}),
        make_manifest(fields("model.onnx", contents[2])).version,
    ]
    assert len({version(), *changed}) == len(changed) + 1


def test_same_version_leaves_the_same_bytes_whatever_was_there(contents, folder, tmp_path):
    write_version(folder, 2, contents[2])
    write_version(folder, 1, contents[1])
    write_version(tmp_path / "fresh", 1, contents[1])

    def content(place: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in place.iterdir()}

    assert content(folder) == content(tmp_path / "fresh")


def test_what_a_killed_writer_left_is_cleared_away(folder, contents):
    (folder / ".model.json.part").write_bytes(b"{")
    (folder / "model-0123456789ab.onnx").write_bytes(b"old")

    write_version(folder, 2, contents[2])

    assert names(folder) == {MANIFEST, CARD, read_manifest(folder).model}


def test_any_flipped_bit_of_the_model_file_is_refused(folder):
    path = folder / read_manifest(folder).model
    content = path.read_bytes()
    bits = [*random.Random(0).sample(range(8 * len(content)), 25), 0, 8 * len(content) - 1]

    for bit in bits:
        path.write_bytes(flipped(content, bit))
        with pytest.raises(ArtifactError, match=r"has SHA-256 .* expects"):
            load_model(folder)


def test_any_flipped_bit_of_the_manifest_is_refused(folder):
    path = folder / MANIFEST
    content = path.read_bytes()
    assert b"e-" in content  # in 1e-05, which reads as the same number when it is 1E-05

    capitals = [8 * content.index(b"e-") + 5]  # e, as E
    for bit in [*random.Random(0).sample(range(8 * len(content)), 1000), *capitals]:
        path.write_bytes(flipped(content, bit))
        with pytest.raises(ArtifactError, match=r"is damaged|it was edited"):
            read_manifest(folder)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch, request):
    """Let a folder that is damaged for good be refused at once."""
    if "damaged" in request.node.name or "flipped" in request.node.name:
        monkeypatch.setattr(artifact, "WAIT_S", 0)


@pytest.mark.parametrize("cut", [0, 1, 100, -2, -1])
def test_damaged_manifest_that_was_cut_is_refused(cut, folder):
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes()[:cut])

    with pytest.raises(ArtifactError, match=r"is damaged|it was edited"):
        load_model(folder)


def test_damaged_folder_without_manifest_or_model_is_refused_in_words(folder):
    model = folder / read_manifest(folder).model
    model.unlink()
    with pytest.raises(ArtifactError, match=rf"{model.name} is missing, model\.json names it"):
        load_model(folder)

    (folder / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"does not exist\. Run `make repro`"):
        load_model(folder)
    with pytest.raises(ArtifactError, match="does not exist"):
        load_model(folder / "nowhere")


def test_damaged_manifest_that_names_no_hash_of_its_model_is_refused(tmp_path, contents):
    manifest = make_manifest(fields("model.onnx", contents[1], files={}))
    write_artifact(tmp_path, manifest, {"model.onnx": contents[1]})

    with pytest.raises(ArtifactError, match=r"model\.json expects none"):
        load_model(tmp_path)


def test_damaged_or_missing_profile_of_the_train_rows_is_refused_and_the_model_still_loads(
    contents, tmp_path
):
    profile = make_profile(make_rows(50), axes_of(CONTRACT))
    files = {"model.onnx": contents[1], TRAIN_PROFILE: profile.to_json().encode()}
    hashes = {name: sha256(content) for name, content in files.items()}
    write_artifact(tmp_path, make_manifest(fields("model.onnx", contents[1], files=hashes)), files)
    path = tmp_path / TRAIN_PROFILE
    assert load_train_profile(tmp_path)[1] == profile

    path.write_bytes(flipped(path.read_bytes(), 800))
    with pytest.raises(ArtifactError, match=rf"{TRAIN_PROFILE} has SHA-256 .* expects"):
        load_train_profile(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{TRAIN_PROFILE} is missing, model\.json names it"):
        load_train_profile(tmp_path)
    assert load_model(tmp_path).predict(X).prediction.tolist() == [1, 1]


def test_edited_manifest_is_refused_even_if_it_is_valid(folder):
    path = folder / MANIFEST
    plain = json.loads(path.read_text("utf-8"))
    plain["interval"]["half_width"] = 0.1
    path.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", "utf-8")

    Manifest.model_validate(plain)
    with pytest.raises(ArtifactError, match="it was edited"):
        read_manifest(folder)


class Stranger(LinearRegression):
    """An estimator that nobody declared to be harmless."""


def test_skops_file_with_a_type_that_is_not_trusted_is_refused_until_the_environment_allows_it(
    tmp_path, monkeypatch
):
    stranger = Stranger().fit(np.eye(4), np.full(4, 7.0))
    write(tmp_path, ".skops", to_skops(stranger))
    name = f"{Stranger.__module__}.Stranger"

    with pytest.raises(ArtifactError, match=rf"types that are not trusted: {name}\."):
        load_model(tmp_path)
    monkeypatch.setenv("TRUSTED_TYPES", f"other.Type {name}")
    assert load_model(tmp_path).predict(X).prediction.tolist() == pytest.approx([7, 7])


def expect_one_of_two_versions(folder: Path) -> str:
    """Load the model; its prediction must be the one of the version that it names."""
    model = load_model(folder)
    assert model.manifest.candidate in {"1", "2"}
    assert model.predict(X).prediction.tolist() == [float(model.manifest.candidate)] * 2
    return model.manifest.candidate


@pytest.fixture
def start_writer(folder, contents) -> Iterator[Callable[[], int]]:
    """Start processes that write one version after the other until they are killed."""
    for version, content in contents.items():
        (folder.parent / f"{version}.onnx").write_bytes(content)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def start() -> int:
        writer.stdin.write("go\n")
        writer.stdin.flush()
        return int(writer.stdout.readline())

    with writer:
        assert writer.stdout.readline() == "ready\n"
        yield start
        writer.stdin.close()
    assert writer.returncode == 0


def test_killed_at_random_moments_the_loader_accepts_the_old_version_or_the_new(
    folder, contents, start_writer
):
    delays, met = random.Random(1), set()
    for _ in range(N_KILLS):
        child = start_writer()
        time.sleep(delays.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        met.add(expect_one_of_two_versions(folder))

    assert met == {"1", "2"}
    write_version(folder, 1, contents[1])
    assert names(folder) == {MANIFEST, CARD, read_manifest(folder).model}


def test_reader_that_was_overtaken_twice_reads_again(folder, contents, monkeypatch):
    """The version it began with went and came back: its file is missed, though all is well."""
    read, n_reads = artifact._read_verified, 0

    def overtaken(place: Path, manifest: Manifest, name: str) -> bytes:
        nonlocal n_reads
        n_reads += 1
        if n_reads > 1:
            return read(place, manifest, name)
        write_version(folder, 2, contents[2])
        try:
            return read(place, manifest, name)
        finally:
            write_version(folder, 1, contents[1])

    monkeypatch.setattr(artifact, "_read_verified", overtaken)

    assert expect_one_of_two_versions(folder) == "1"
    assert n_reads == 2


def test_reader_never_meets_an_error_while_another_process_swaps_versions(folder, start_writer):
    child = start_writer()
    try:
        met = [expect_one_of_two_versions(folder) for _ in range(400)]
    finally:
        os.kill(child, signal.SIGKILL)

    n_swaps_seen = sum(one != next_one for one, next_one in pairwise(met))
    assert n_swaps_seen > 20
