"""Run the pipeline with nobody watching: dvc repro, its output kept, its end told by e-mail.

`python -m ops.run [arguments of dvc repro]` mends and checks first, as `make repro` does. What is
shown is kept in logs/run-<time>.log, for the last 30 runs. Where SMTP_HOST and MAIL_TO are set (see
.env.example), an e-mail tells of success, with the scores, and of failure, with the stage and its
last words. The exit code is that of DVC, and 75 while another run is at work.
"""

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from contract.artifact import FINAL, read_manifest
from contract.errors import ContractError
from contract.settings import read_settings
from ops.mail import MailError, MailSettings, hide, send_mail

LOGS = Path("logs")
RUNNING = LOGS / "run.lock"  # locked while a run is at work, and tells which
EVALUATION = Path("metrics/evaluation.json")
PREPARATIONS = ("ops.mend", "ops.check")
N_LOGS = 30  # a month of nightly runs
N_LAST_LINES = 30
CHUNK_BYTES = 65_536
LOOK_S = 0.2
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunningError(ValueError):
    """Another run is at work; the message says which."""


@contextmanager
def only_run() -> Iterator[None]:
    """Be the only run in this folder; raises RunningError if there is another."""
    LOGS.mkdir(exist_ok=True)
    with RUNNING.open("a+", encoding="utf-8") as lock:
        if not _is_ours(lock):
            lock.seek(0)
            who = lock.read().strip() or "another process"
            raise RunningError(f"A run is at work already: {who}. Wait for its end.")
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        lock.flush()
        yield


def _is_ours(lock: TextIO) -> bool:
    """Lock the file, in a few tries, as `who_runs` holds it for a moment."""
    give_up_s = time.monotonic() + LOOK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > give_up_s:
                return False
        time.sleep(LOOK_S / 10)


def who_runs() -> str | None:
    """Say which run is at work; None if none is."""
    if not RUNNING.exists():
        return None
    with RUNNING.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip() or "another process"
    return None


class Log:
    """A file that keeps all that is shown; who watches may leave, the file goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("xb", buffering=0)

    def add(self, output: bytes) -> None:
        self._file.write(output)
        try:
            sys.stdout.buffer.write(output)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def say(self, text: str) -> None:
        self.add(f"{text}\n".encode())

    def text(self) -> str:
        return self.path.read_text("utf-8", "replace")

    def close(self) -> None:
        self._file.close()


def run_logged(command: Sequence[str], log: Log) -> int:
    """Run a program, its output into the log; give its exit code, 128 and more for a signal.

    Signals that would end us end the program and all it started, so that this can still be told.
    """
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # else stages speak at their end
    with (
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C comes by us alone, and once
        ) as program,
        _signals_go_to(program.pid),
    ):
        for output in _output(program):
            log.add(output)
    code = program.returncode
    return code if code >= 0 else 128 - code


def _output(program: subprocess.Popen) -> Iterator[bytes]:
    """Give what a program says until it ends; what it leaves behind may hold its output open."""
    pipe = program.stdout.fileno()
    while True:
        has_more = select.select([pipe], [], [], LOOK_S)[0]
        if has_more and (output := os.read(pipe, CHUNK_BYTES)):
            yield output
        elif has_more or program.poll() is not None:
            return


@contextmanager
def _signals_go_to(group: int) -> Iterator[None]:
    def forward(number: int, _: Any) -> None:
        with suppress(ProcessLookupError):
            os.killpg(group, number)

    heeded = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def repro(arguments: Sequence[str], log: Log) -> int:
    """Mend, check and run `dvc repro`; give the exit code of what ended it."""
    for module in PREPARATIONS:
        if code := run_logged([sys.executable, "-m", module], log):
            return code
    return run_logged([sys.executable, "-m", "dvc", "repro", *arguments], log)


def tell(code: int, log: Log) -> tuple[str, str]:
    """Put the end of a run into words: the subject and the text of an e-mail."""
    output = log.text()
    ran = re.findall(r"^Running stage '(.+)':\r?$", output, flags=re.MULTILINE)
    if code == 0:
        return _success(ran, log.path)
    failed = re.findall(r"failed to reproduce '([^']+)'", output) or ran
    where = f"at {failed[-1]}" if failed else "before the first stage"
    last = "\n".join(f"  {line}" for line in output.splitlines()[-N_LAST_LINES:])
    text = f"The run ended with exit code {code}, {where}. Its last lines:\n\n{last}\n"
    return f"Run failed {where}", f"{text}\nAll of its output is in {log.path}.\n"


def _success(ran: Sequence[str], log_path: Path) -> tuple[str, str]:
    done = f"It ran {', '.join(ran)}." if ran else "Nothing had changed, so no stage ran."
    version, scores = _model(), _scores()
    lines = ["The run has ended well.", done, "", *scores]
    if version:
        lines += ["", f"{FINAL} holds {version}."]
    lines += ["", f"All of its output is in {log_path}.", ""]
    return f"Run done: {version or 'no model exported'}", "\n".join(lines)


def _model() -> str:
    """Name the model that lies in models/final; nothing if there is none."""
    try:
        manifest = read_manifest(FINAL)
    except ContractError:
        return ""
    return f"{manifest.candidate}, version {manifest.version}"


def _scores() -> list[str]:
    """List the figures of the last evaluation, where there was one."""
    try:
        figures = json.loads(EVALUATION.read_text("utf-8"))
        told = [(key, value) for key, value in figures.items() if isinstance(value, int | float)]
    except (OSError, ValueError, AttributeError):
        return []
    return [f"{EVALUATION}:", *(f"  {name:<28}{value:g}" for name, value in told)]


def make_log() -> Log:
    """Begin the log of this run, and let go of the oldest."""
    log = Log(LOGS / f"run-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.log")
    for path in sorted(LOGS.glob("run-[0-9]*T*Z.log"))[:-N_LOGS]:  # by name is by time
        path.unlink()
    return log


def _send(settings: MailSettings, subject: str, text: str, log: Log) -> None:
    """Tell of the end by e-mail; where that fails, the run has still ended as it has."""
    try:
        send_mail(settings, subject, hide(text, [settings.password]))
    except MailError as error:
        log.say(f"WARNING: no e-mail could be sent. {error}")
    else:
        log.say(f"Told {settings.mail_to} by e-mail.")


def run(arguments: Sequence[str]) -> int:
    """Run the pipeline, as the only one here; give the exit code."""
    log = make_log()
    try:
        settings = read_settings(MailSettings)  # before hours of work that could not be told of
        code = repro(arguments, log)
        subject, text = tell(code, log)
        if settings.sends_mail:
            _send(settings, subject, text, log)
        log.say(f"{subject}. The output is in {log.path}.")
    except ContractError as error:
        log.say(f"ERROR: {error}")
        code = 1
    finally:
        log.close()
    return code


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & {*given}:
        sys.stdout.write(f"{(__doc__ or '').strip()}\n")
        return
    try:
        with only_run():
            code = run(given)
    except RunningError as error:
        sys.stderr.write(f"{error}\n")
        code = os.EX_TEMPFAIL
    except OSError as error:  # such as a full disk
        sys.exit(f"ERROR: {error}. Mend that and start the run again.")
    sys.exit(code)


if __name__ == "__main__":
    main()
