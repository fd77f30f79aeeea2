"""A folder to run stages in, one by one and without DVC."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.rows import write_rows
from stages import approve, evaluate, select, split, tune, validate
from tests.example import as_text, make_rows, write_params


def tune_one(name: str) -> None:
    """Search one candidate, as `python -m stages.tune NAME` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tune", name])
        tune.main()


def tune_all() -> None:
    for name in ("linear", "ridge", "decision_tree"):
        tune_one(name)


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory) -> dict[str, Path]:
    """Copies of one small project, as each stage left it."""
    here, kept = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("snapshots")
    stages: dict[str, Callable[[], object]] = {
        "none": write_params,
        "validate": validate.main,
        "split": split.main,
        "tune": tune_all,
        "select": select.main,
        "evaluate": evaluate.main,
        "approve": approve.main,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        (here / "data").mkdir()
        for accepted in ("champion", "reference"):
            (here / f"data/{accepted}.json").write_text("{}\n")
        for name, run in stages.items():
            run()
            shutil.copytree(here, kept / name)
            if name == "none":
                write_rows(as_text(make_rows(200)), validate.ROWS)
    return {name: kept / name for name in stages}


@pytest.fixture
def go_to(snapshots, tmp_path, monkeypatch) -> Callable[[str], Path]:
    def go(stage: str) -> Path:
        shutil.copytree(snapshots[stage], tmp_path / "here")
        monkeypatch.chdir(tmp_path / "here")
        return tmp_path / "here"

    return go


@pytest.fixture
def project(go_to) -> Path:
    """The current folder, with the small example's params, no champion and no reference."""
    return go_to("none")


@pytest.fixture
def parted(go_to) -> Path:
    """The project after `split` of 200 rows."""
    return go_to("split")


@pytest.fixture
def tuned(go_to) -> Path:
    """The project after `tune`, each candidate searched."""
    return go_to("tune")


@pytest.fixture
def selected(go_to) -> Path:
    """The project after `select`."""
    return go_to("select")


@pytest.fixture
def approved(go_to) -> Path:
    """The project after `evaluate` and `approve`."""
    return go_to("approve")


@pytest.fixture
def run_tune() -> Callable[[str], None]:
    return tune_one
