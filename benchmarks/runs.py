"""Copies of this project that measurements may run in, and what its programs cost there."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
MADE_BY_STAGES = ["dvc.lock", "metrics", "models"]  # a copy starts cold
OWN_WORK = re.compile(r"own work took ([0-9.]+) s")


@dataclass(frozen=True)
class Cost:
    """What one program cost, with all processes that it started."""

    arguments: list[str]
    wall_s: float
    cpu_s: float
    peak_mb: float  # of its processes together
    n_processes: int

    @property
    def stage(self) -> str:
        """The name that DVC gives to `python -m stages.NAME [ITEM]`."""
        return "@".join([self.arguments[1].removeprefix("stages."), *self.arguments[2:]])


@dataclass(frozen=True)
class Repro:
    """One `dvc repro`: what it took, and what each stage that ran took of it."""

    wall_s: float
    stages: dict[str, Cost]
    own_s: dict[str, float]  # a stage's work alone, as it says itself


@dataclass(frozen=True)
class Copy:
    """A copy of this project in a folder of its own; nothing has run in it yet."""

    root: Path

    def run(self, *arguments: str, **environment: str) -> tuple[str, Cost]:
        """Run Python; give what it wrote to stdout, and its cost."""
        said = self._run([str(self._bin / "python"), *arguments], environment, subprocess.PIPE)
        (cost,) = self._take_costs()
        return said, cost

    def dvc(self, *arguments: str) -> float:
        """Run DVC; give the seconds it took."""
        began = time.perf_counter()
        self._run([sys.executable, "-m", "dvc", *arguments], {}, subprocess.PIPE)
        return time.perf_counter() - began

    def repro(self) -> Repro:
        """Run `dvc repro` and take apart where its time went."""
        began = time.perf_counter()
        told = self._run([sys.executable, "-m", "dvc", "repro"], {}, subprocess.STDOUT)
        wall_s = time.perf_counter() - began
        costs = {cost.stage: cost for cost in self._take_costs() if "-m" in cost.arguments}
        own_s = dict(zip(costs, map(float, OWN_WORK.findall(told)), strict=True))
        return Repro(wall_s, costs, own_s)

    def set_params(self, changes: dict[str, Any]) -> None:
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

    @property
    def _bin(self) -> Path:
        return self.root.with_name("bin")

    @property
    def _costs(self) -> Path:
        return self.root.with_name("costs.jsonl")

    def _run(self, command: list[str], environment: dict[str, str], stderr: int) -> str:
        settings = {
            "PATH": os.pathsep.join([str(self._bin), os.environ["PATH"]]),
            "BENCHMARK_PYTHON": sys.executable,
            "BENCHMARK_COSTS": str(self._costs),
            "DVC_SITE_CACHE_DIR": str(self.root.with_name("site")),
        }
        done = subprocess.run(
            command,
            cwd=self.root,
            env=os.environ | settings | environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stdout}{done.stderr or ''}")
        return done.stdout

    def _take_costs(self) -> list[Cost]:
        lines = self._costs.read_text().splitlines() if self._costs.exists() else []
        self._costs.unlink(missing_ok=True)
        return [Cost(**json.loads(line)) for line in lines]


@contextmanager
def cold_copy(changes: dict[str, Any]) -> Iterator[Copy]:
    """Copy the project as it is in the working tree, without what its stages have made."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        copy = Copy(Path(folder) / "project")
        for name in filter(_is_source, _git_files()):
            (copy.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy.root / name)
        (copy.root / "data/champion.json").write_text("{}\n")
        stand_in = copy.root.with_name("bin") / "python"
        stand_in.parent.mkdir()
        measured = ROOT / "benchmarks/measured.py"
        stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{measured}" "$@"\n')
        stand_in.chmod(0o755)
        copy.set_params(changes)
        _commit(copy.root)
        yield copy


def _git_files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.check_output(command, cwd=ROOT, text=True).splitlines()


def _is_source(name: str) -> bool:
    return (ROOT / name).exists() and name.split("/")[0] not in MADE_BY_STAGES


def _commit(root: Path) -> None:
    """DVCLive works in a git repository that has a commit."""
    identity = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.org"]
    message = ["commit", "--quiet", "--no-verify", "--message", "measure"]
    for arguments in (["init", "--quiet"], ["add", "--all"], [*identity, *message]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
