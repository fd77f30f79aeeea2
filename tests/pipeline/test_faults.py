"""Runs that are killed, meet a lock or meet each other: the next one equals a clean run."""

import fcntl
import json
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from benchmarks.chaos_repro import (
    MADE,
    command_of,
    kill,
    recover,
    start_repro,
    wait_until,
)

PATIENT_SHELL = '#!/bin/sh\n/bin/sh "$@"\nexit $?\n'  # waits above the stage, as zsh or fish may
PASSING_SHELL = '#!/bin/sh\nexec /bin/sh -c "exec $2"\n'  # becomes the stage, as bash does
SLOW = {  # long enough for worker processes, each fit short
    "class": "sklearn.ensemble.RandomForestRegressor",
    "grid": {"n_estimators": list(range(100, 200))},
}


def below(repro: subprocess.Popen, words: str) -> list[psutil.Process]:
    """Find the processes below DVC whose command holds these words."""
    family = psutil.Process(repro.pid).children(recursive=True)
    return [process for process in family if words in command_of(process)]


def test_runs_killed_at_random_moments_leave_no_process_and_the_next_equals_a_clean_one(
    untrained, trained_once
):
    """The short form of benchmarks/chaos_repro.py, which starts anew for each moment."""
    chance = random.Random(1)
    for with_stage in (False, True, False, True):
        repro = start_repro(untrained)
        wait_until(lambda repro=repro: below(repro, "-m stages.") or repro.poll() is not None)
        with suppress(subprocess.TimeoutExpired):
            repro.wait(chance.uniform(0, 2))
        assert kill(repro, with_stage).survivors == ()

    recover(untrained)

    assert untrained.contents(*MADE) == trained_once.contents(*MADE)


@pytest.mark.parametrize(
    ("shell", "with_stage"), [(PATIENT_SHELL, False), (PASSING_SHELL, False), (PASSING_SHELL, True)]
)
def test_stage_and_its_workers_end_soon_after_dvc(trained, shell, with_stage):
    path = trained.root.parent / "shell"
    path.write_text(shell)
    path.chmod(0o755)
    trained.set_params({"models.slow": SLOW, "candidates": ["linear", "slow"]})
    repro = start_repro(trained, "tune@slow", SHELL=str(path))
    wait_until(lambda: len(below(repro, "LokyProcess")) >= 2)
    time.sleep(1)  # for the workers to get to work

    killed = kill(repro, with_stage)

    assert killed.stage == "stages.tune slow"
    assert killed.survivors == ()
    assert killed.seconds_to_end < 3  # a tenth, but for a busy machine


def test_stage_whose_dvc_ended_while_it_was_starting_does_nothing(trained):
    before = trained.contents("data", "metrics")
    stage = [sys.executable, "-m", "stages.ingest"]

    orphan = trained.run(  # in another session than what started it, as an adopted one
        *stage, env={"DVC_STAGE": "ingest"}, start_new_session=True, check=False
    )

    assert (orphan.returncode, orphan.stdout) == (-signal.SIGKILL, "")
    assert trained.contents("data", "metrics") == before
    assert trained.run(*stage, env={"DVC_STAGE": "ingest"}).returncode == 0


TORN = {
    "an empty dvc.lock": ("dvc.lock", lambda text: ""),
    "half a dvc.lock": ("dvc.lock", lambda text: text[: text.index("size") + 2]),
    "an empty list of readers and writers": (".dvc/tmp/rwlock", lambda text: ""),
}


@pytest.mark.parametrize("what", TORN)
def test_file_of_dvc_that_a_kill_tore_stops_dvc_and_is_put_right_by_mend(trained, what):
    """DVC rewrites these files in place; which a kill in the same moment leaves torn."""
    before = trained.contents(*MADE)
    name, tear = TORN[what]
    (trained.root / name).write_text(tear(trained.read(name)), "utf-8")
    assert trained.dvc("repro", check=False).returncode != 0
    mend = (sys.executable, "-m", "ops.mend")

    with (trained.root / ".dvc/tmp/lock").open("r+") as held_by_another_dvc:
        fcntl.flock(held_by_another_dvc, fcntl.LOCK_EX)
        assert trained.run(*mend).stdout == ""
    told = trained.run(*mend).stdout

    assert told.startswith(f"{name} was torn when DVC was killed; ")
    assert trained.run(*mend).stdout == ""
    assert trained.repro() == []
    assert trained.contents(*MADE) == before


def test_locks_that_a_killed_run_left_do_not_block(trained):
    dead = subprocess.Popen(["true"])
    dead.wait()
    holder = {"pid": dead.pid, "cmd": "dvc repro"}
    verdict = str(trained.root / "metrics/verdict.json")
    locks = {"write": {verdict: holder}, "read": {verdict: [holder]}}
    (trained.root / ".dvc/tmp/rwlock").write_text(json.dumps(locks))
    (trained.root / ".dvc/tmp/lock").write_text(f" {dead.pid}\n")
    trained.set_params({"gate.floor": 0.7})

    assert trained.repro() == ["approve"]


def test_second_repro_at_the_same_time_waits_or_says_why_it_cannot_run(trained):
    model = trained.contents("models/final")
    trained.set_params({"models.ridge.grid": {"alpha": [0.1, 1.0, 1e6]}})
    first = start_repro(trained)
    wait_until(lambda: below(first, "-m stages.tune"))

    second = trained.dvc("repro", check=False)

    first.wait()  # on a slow machine it may be the one that cannot go on
    assert "Traceback" not in second.stdout
    if second.returncode != 0:
        assert re.search("is busy, it is being blocked by|Unable to acquire lock", second.stdout)
    trained.repro()
    assert trained.repro() == []
    assert json.loads(trained.read("metrics/tune/ridge/best.json"))["n_combinations"] == 3
    assert trained.contents("models/final") == model
