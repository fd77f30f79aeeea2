"""Kill `dvc repro` by SIGKILL at random moments, and compare what the next one makes.

`make chaos`, or `python -m benchmarks.chaos_repro --moments 20`: each moment gets a fresh copy of
the project. Every other time DVC is killed alone, so that its stage must end by itself; else
together with its stage. Ends with exit code 1 if any result differs from a clean run's.
"""

import argparse
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import Project, copy_project

logger = logging.getLogger(__name__)

MADE = ("dvc.lock", "metrics", "models/final")
PATIENCE_S = 60.0  # what has not ended by then counts as a survivor


@dataclass(frozen=True)
class Killed:
    """What became of the processes of a killed run."""

    stage: str  # that was running
    seconds_to_end: float  # from the kill until all that it had started was gone
    survivors: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of the project of a killed run, once the next one had ended."""

    killed: Killed
    mended: str
    wrong_files: list[str]

    @property
    def is_right(self) -> bool:
        return not self.wrong_files and not self.killed.survivors


def start_repro(project: Project, *arguments: str, **variables: str) -> subprocess.Popen:
    """Start `dvc repro` as a shell with job control would: in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", *arguments],
        cwd=project.root,
        env=project.environment() | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(repro: subprocess.Popen, with_stage: bool) -> Killed:
    """Kill DVC, alone or with its stage, and wait until all below it has ended."""
    if repro.poll() is not None:
        return Killed("nothing, it had ended", 0.0, ())
    family = psutil.Process(repro.pid).children(recursive=True)
    stage = [process for process in family if "-m stages." in command_of(process)]
    name = command_of(stage[-1]).rpartition("-m ")[2] if stage else "no stage"
    began = time.monotonic()
    repro.kill()
    for process in stage if with_stage else []:
        with suppress(psutil.Error):
            process.kill()
    with suppress(TimeoutError):
        wait_until(lambda: not any(map(is_alive, family)))
    seconds = time.monotonic() - began
    repro.wait()
    return Killed(name, seconds, tuple(map(command_of, filter(is_alive, family))))


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def command_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def wait_until(holds: Callable[[], bool]) -> None:
    """Look often until something holds; raises TimeoutError if it takes too long."""
    patience = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > patience:
            raise TimeoutError
        time.sleep(0.02)


def recover(project: Project) -> str:
    """Let the next run end, as `make repro` would; tell what `ops.mend` had to put right."""
    mended = project.run(sys.executable, "-m", "ops.mend").stdout
    project.dvc("repro")
    return mended.strip()


def differences(made: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Name the files that are not as expected."""
    return sorted(
        name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name)
    )


def run_clean(project: Project) -> tuple[dict[str, bytes], float]:
    """Run the project without a kill; give what it made and the time it took."""
    began = time.monotonic()
    project.dvc("repro")
    return project.contents(*MADE), time.monotonic() - began


def strike(
    project: Project, moment_s: float, with_stage: bool, expected: dict[str, bytes]
) -> Outcome | None:
    """Kill a run at a moment, let the next one end, and compare what it made.

    None if the run had ended before that moment.
    """
    repro = start_repro(project)
    with suppress(subprocess.TimeoutExpired):
        repro.wait(moment_s)
        return None
    killed = kill(repro, with_stage)
    mended = recover(project)
    outcome = Outcome(killed, mended, differences(project.contents(*MADE), expected))
    logger.info(
        "%5.2f s, %s %-22s all gone after %.2f s%s%s",
        moment_s,
        "with its stage" if with_stage else "alone during  ",
        killed.stage,
        killed.seconds_to_end,
        f"; {mended}" if mended else "",
        "" if outcome.is_right else f", WRONG: {outcome.wrong_files} {killed.survivors}",
    )
    return outcome


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311, no secret hangs on it
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        untrained = copy_project(Path(folder) / "untrained" / "project")
        expected, whole_s = run_clean(untrained.copy(Path(folder) / "clean" / "project"))
        while len(outcomes) < arguments.moments:
            project = untrained.copy(Path(folder) / "killed" / "project")
            with_stage = bool(len(outcomes) % 2)
            outcome = strike(project, chance.uniform(0, whole_s), with_stage, expected)
            outcomes += [outcome] if outcome else []
            shutil.rmtree(project.root.parent)
    n_right = sum(outcome.is_right for outcome in outcomes)
    logger.info(
        "%d of %d runs ended as the clean one of %.1f s did; the last process was gone %.2f s "
        "after the kill at most; %d times a file of DVC's was torn, and put right by ops.mend",
        n_right,
        len(outcomes),
        whole_s,
        max(outcome.killed.seconds_to_end for outcome in outcomes),
        sum(bool(outcome.mended) for outcome in outcomes),
    )
    sys.exit(n_right < len(outcomes))


if __name__ == "__main__":
    main()
