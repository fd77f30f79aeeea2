"""A run that nobody watches: what it keeps, tells and answers; a real pipeline, a real server."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.run import LOGS, N_LOGS, make_log, who_runs
from tests.conftest import Project, stages_run
from tests.ops.mailbox import mailbox_open
from tests.serve.servers import free_port

COMMAND = (sys.executable, "-m", "ops.run")
WAIT_S = 30


def logs_of(project: Project) -> list[str]:
    return [path.read_text("utf-8") for path in sorted((project.root / "logs").glob("run-*.log"))]


@contextmanager
def started(project: Project, *arguments: str, env: dict[str, str] | None = None):
    """Start a run in the background, in a group of its own; it ends with the block."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=project.root,
        env=project.environment() | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def wait_for(is_so, what: str) -> None:
    give_up = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < give_up, f"waited for {what}"
        time.sleep(0.02)


def slow_source(project: Project) -> None:
    """Let the first stage wait, until it is ended, and say so."""
    path = project.root / "stages/ingest.py"
    hold = "import time\n\nprint('holding', flush=True)\ntime.sleep(60)\n"
    path.write_text(hold + path.read_text("utf-8"), "utf-8")


def test_success_is_kept_and_told_with_scores_and_version(trained):
    trained.set_params({"gate.floor": 0.1})
    with mailbox_open() as mailbox:
        run = trained.run(*COMMAND, env=mailbox.settings)

    version = json.loads(trained.read("models/final/model.json"))["version"]
    (log,) = logs_of(trained)
    assert stages_run(log) == ["approve"]
    assert log == run.stdout
    assert mailbox.subjects[0].startswith("Run done: ")
    (text,) = mailbox.texts
    assert version in mailbox.subjects[0]
    assert "It ran approve." in text
    assert "mean_absolute_error" in text
    assert "logs/run-" in text


def test_logs_of_the_newest_runs_are_kept_and_no_other_file_is_touched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LOGS.mkdir()
    old = [LOGS / f"run-202601{day:02}T020000.000000Z.log" for day in range(1, N_LOGS + 5)]
    others = [LOGS / name for name in ("run-mine.log", "run.lock", "monitor.json")]
    for path in [*old, *others]:
        path.touch()

    log = make_log()
    log.close()

    assert {*LOGS.iterdir()} == {*old[-N_LOGS + 1 :], log.path, *others}


def test_run_takes_the_arguments_of_dvc_and_needs_no_mail(trained):
    run = trained.run(*COMMAND, "--quiet", "approve")

    assert "\nRun done: " in run.stdout
    assert len(logs_of(trained)) == 1


def test_failure_names_the_stage_and_its_last_words_and_keeps_the_exit_code(trained):
    trained.set_params({"gate.floor": 0.999})
    own = trained.dvc("repro", check=False)
    with mailbox_open() as mailbox:
        run = trained.run(*COMMAND, check=False, env=mailbox.settings)

    assert run.returncode == own.returncode != 0
    assert mailbox.subjects == ["Run failed at approve"]
    (text,) = mailbox.texts
    assert f"exit code {own.returncode}" in text
    assert "floor" in text  # of what the stage said
    assert "failed to reproduce 'approve'" in text


def test_params_that_cannot_be_read_end_the_run_before_a_stage(untrained):
    untrained.set_params({"sede": 3})
    with mailbox_open() as mailbox:
        run = untrained.run(*COMMAND, check=False, env=mailbox.settings)

    assert run.returncode == 1
    assert mailbox.subjects == ["Run failed before the first stage"]
    assert "did you mean seed?" in mailbox.texts[0]


def test_mail_that_cannot_be_sent_is_a_warning_and_the_run_ends_as_it_did(trained):
    settings = {
        "SMTP_HOST": "localhost",
        "SMTP_PORT": str(free_port()),
        "SMTP_TLS": "off",
        "MAIL_FROM": "a@example.org",
        "MAIL_TO": "b@example.org",
    }
    run = trained.run(*COMMAND, "--quiet", env=settings)

    assert "WARNING: no e-mail could be sent. localhost, port" in run.stdout
    assert "Traceback" not in run.stdout
    assert logs_of(trained) == [run.stdout]


def test_wrong_mail_setting_stops_the_run_before_it_works(untrained):
    run = untrained.run(*COMMAND, check=False, env={"SMTP_HOST": "localhost"})

    assert run.returncode == 1
    assert run.stdout == (
        "ERROR: MAIL_TO is missing, expected with the other, to send e-mail. "
        "Correct the environment or .env.\n"
    )


def test_second_run_says_who_runs_and_leaves_the_first_alone(untrained, monkeypatch):
    monkeypatch.chdir(untrained.root)
    slow_source(untrained)
    assert who_runs() is None
    with started(untrained) as first:
        wait_for(lambda: "holding" in "".join(logs_of(untrained)), "the first stage")
        second = untrained.run(*COMMAND, check=False)
        who = who_runs()
        assert first.poll() is None

    assert second.returncode == os.EX_TEMPFAIL
    assert second.stdout.startswith(f"A run is at work already: process {first.pid}, since 20")
    assert who.startswith(f"process {first.pid}, since 20")
    assert len(logs_of(untrained)) == 1
    wait_for(lambda: who_runs() is None, "the lock")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_is_told_to_end_ends_dvc_and_tells_of_it(number, untrained):
    slow_source(untrained)
    with mailbox_open() as mailbox, started(untrained, env=mailbox.settings) as run:
        wait_for(lambda: "holding" in "".join(logs_of(untrained)), "the first stage")
        run.send_signal(number)
        code = run.wait(timeout=WAIT_S)

    assert code != 0
    assert mailbox.subjects == ["Run failed at ingest"]


def test_who_watches_may_leave_and_the_run_goes_on(trained):
    with started(trained, "--force", "approve") as run:
        run.stdout.close()
        assert run.wait(timeout=WAIT_S) == 0

    assert "approve" in stages_run(logs_of(trained)[0])


def test_help_is_told_and_nothing_runs(tmp_path):
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [*COMMAND, "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "dvc repro" in told.stdout
    assert list(tmp_path.iterdir()) == []
