"""Temporary projects: real copies of this one, with real git and DVC, and small searches."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from contract.predictions.log import PredictionLog
from tests.postgres import postgres, postgres_server  # noqa: F401, fixtures of all folders

ROOT = Path(__file__).parents[1]
NOBODY = 65534
SMALL = {
    "candidates": ["linear", "ridge", "decision_tree"],
    "models.ridge.grid": {"alpha": [0.1, 1.0]},
    "models.decision_tree.grid": {"max_depth": [3, 4]},
    "evaluate.n_resamples": 100,
    "evaluate.n_permutations": 2,
}
MADE_BY_STAGES = ("dvc.lock", "metrics/")  # that git tracks
OTHERS_SETTINGS = (
    *("AWS_", "DVC_", "GIT_", "MLFLOW_", "PYTHON", "TRUSTED_TYPES", "XDG_"),
    *("ALERT_", "MAIL_", "MONITOR_", "SMTP_"),
)


@dataclass(frozen=True)
class Project:
    """A copy of this project in a folder of its own."""

    root: Path

    def environment(self) -> dict[str, str]:
        """This environment, apart from the settings of whoever runs the tests.

        The interpreter of the tests comes first on the path. All projects of a session share
        one home, two folders up, since programs fill it with caches.
        """
        home = self.root.parents[1] / "home"
        kept = {key: v for key, v in os.environ.items() if not key.startswith(OTHERS_SETTINGS)}
        identity = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in {"NAME": "Test", "EMAIL": "test@example.org"}.items()
        }
        return {
            **kept,
            **identity,
            "HOME": str(home),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "SHELL": "/bin/sh",
            "LC_ALL": "C.UTF-8",
            "PYTHONWARNINGS": "default",
            "GIT_CONFIG_NOSYSTEM": "1",
            "DVC_TEST": "true",  # no telemetry, no look for a newer version
            "DVC_SITE_CACHE_DIR": str(home / "dvc"),
            "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc"),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def run(self, *command: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        """Run a program in the project and collect what it says, both streams in stdout."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment() | options.pop("env", {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        assert not check or done.returncode == 0, f"{command} failed:\n{done.stdout}"
        return done

    def dvc(self, *arguments: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "dvc", *arguments, check=check, **options)

    def repro(self, *arguments: str, **options) -> list[str]:
        """Run `dvc repro` and name the stages that it ran, in their order."""
        return stages_run(self.dvc("repro", *arguments, **options).stdout)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments).stdout

    def commit(self, message: str = "test") -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def set_params(self, changes: dict) -> None:
        """Change params.yaml; keys are paths with dots."""
        yaml, path = YAML(), self.root / "params.yaml"
        params = yaml.load(path)
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = params
            for name in sections:
                section = section[name]
            section[last] = value
        yaml.dump(params, path)

    def read(self, path: str) -> str:
        return (self.root / path).read_text("utf-8")

    def copy(self, to: Path) -> "Project":
        shutil.copytree(self.root, to, symlinks=True)
        return Project(to)

    def contents(self, *places: str) -> dict[str, bytes]:
        """Give the bytes of each file at or below these places, by its path."""
        found = [self.root / place for place in places]
        files = [path for place in found for path in [place, *place.rglob("*")] if path.is_file()]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


def stages_run(output: str) -> list[str]:
    """Name the stages that a `dvc repro` ran, from what it said."""
    return re.findall(r"^Running stage '(.+)':$", output, flags=re.MULTILINE)


def copy_project(to: Path) -> Project:
    """Copy the files that git tracks or would track, but for those that stages make."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    for name in listed.strip("\0").split("\0"):
        if (ROOT / name).exists() and not name.startswith(MADE_BY_STAGES):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    project = Project(to)
    project.git("init", "--quiet", "--initial-branch", "main")
    project.set_params(SMALL)
    project.commit()
    return project


@pytest.fixture(scope="session")
def untrained_once(tmp_path_factory) -> Project:
    """The small project, copied once, so that a change of the code meanwhile parts no two tests."""
    return copy_project(tmp_path_factory.mktemp("untrained") / "project")


@pytest.fixture(scope="session")
def trained_once(untrained_once, tmp_path_factory) -> Project:
    """The small project after one `dvc repro`; tests change a copy of it, `trained`."""
    project = untrained_once.copy(tmp_path_factory.mktemp("trained") / "project")
    project.dvc("repro")
    project.commit()
    return project


@pytest.fixture
def trained(trained_once, tmp_path) -> Project:
    """A project of one's own on which `dvc repro` has just run and been committed."""
    return trained_once.copy(tmp_path / "project")


@pytest.fixture
def untrained(untrained_once, tmp_path) -> Project:
    """A project of one's own on which nothing has run."""
    return untrained_once.copy(tmp_path / "project")


@pytest.fixture
def guarded_folder() -> Iterator[Path]:
    """Give a folder of a user whom permissions bind, unlike root, and be that user."""
    was = os.geteuid()
    os.seteuid(NOBODY if was == 0 else was)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        Path(folder).chmod(0o700)
    os.seteuid(was)


@pytest.fixture
def path(tmp_path) -> Path:
    """Give where a prediction log is, or may be."""
    return tmp_path / "predictions.db"


@pytest.fixture
def log(path) -> Iterator[PredictionLog]:
    with closing(PredictionLog(path)) as log:
        yield log
