"""Alerts: one for each cause until it is over, on each way, whatever fails meanwhile."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contract.settings import SettingsError, read_settings
from ops.alerts import AlertSettings, alert
from tests.example import ROOT
from tests.ops.mailbox import mailbox_open
from tests.ops.reports import AREA, HEATING, WORSE, make_report
from tests.ops.test_run import wait_for
from tests.serve.servers import free_port

SECRET = "T0k3n"
WARNED = AREA.model_copy(update={"action": "warn", "value": 0.2})


class Hook:
    """A real HTTP server that keeps what is posted, and answers as it is told to."""

    def __init__(self, port: int, status: int = 200, slow_s: float = 0.0):
        self.posted: list[dict] = []
        self.status, self.slow_s = status, slow_s
        self.url = f"http://127.0.0.1:{port}/hooks/{SECRET}"
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(hook.slow_s)
                hook.posted.append(json.loads(body))
                self.send_response(hook.status, f"see {self.path}")
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    @property
    def texts(self) -> list[str]:
        return [each["text"] for each in self.posted]


@contextmanager
def hook_open(port: int | None = None, **options) -> Iterator[Hook]:
    """Run such a server until the block ends."""
    hook = Hook(port or free_port(), **options)
    thread = threading.Thread(target=hook.server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        thread.join()
        hook.server.server_close()


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Make settings from the environment, with the report in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONITOR_REPORT", str(tmp_path / "logs/monitor.json"))

    def make(**environment: str) -> AlertSettings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return read_settings(AlertSettings)

    return make


def causes(settings: AlertSettings) -> list[dict]:
    return json.loads(Path(f"{settings.monitor_report}.alerts.json").read_text())["causes"]


def test_nothing_is_told_or_kept_while_no_way_is_set(settings, tmp_path):
    assert alert(make_report(AREA), settings()) == []
    assert list(tmp_path.iterdir()) == []


def test_cause_is_told_once_until_it_is_over_and_then_that(settings):
    with hook_open() as hook:
        ways = settings(ALERT_WEBHOOK=hook.url)
        first = alert(make_report(AREA), ways)
        assert alert(make_report(AREA), ways) == []
        assert alert(make_report(AREA.model_copy(update={"value": 3.0})), ways) == []
        second = alert(make_report(AREA, HEATING), ways)
        assert alert(make_report(WARNED, HEATING), ways) == []  # less, but not over
        third = alert(make_report(HEATING), ways)
        assert alert(make_report(HEATING), ways) == []
        fourth = alert(make_report(AREA, HEATING), ways)  # it is back

    assert first == ["Told 127.0.0.1 by its webhook: Drift of area."]
    assert second == ["Told 127.0.0.1 by its webhook: Drift of heating."]
    assert third == ["Told 127.0.0.1 by its webhook: No more drift of area."]
    assert fourth == first
    assert "New:\n- area: difference of means 1.25, limit 0.25" in hook.texts[0]
    assert "Still so:\n- area: difference of means 1.25" in hook.texts[1]
    assert "Over:\n- area: difference of means; from 2026-11-23 20:00 to" in hook.texts[2]
    assert len(hook.posted) == 4
    assert all(set(posted) == {"text"} for posted in hook.posted)


def test_what_is_only_worth_a_look_begins_no_cause(settings):
    with hook_open() as hook:
        assert alert(make_report(WARNED), settings(ALERT_WEBHOOK=hook.url)) == []

    assert hook.posted == []


@pytest.mark.parametrize(
    "later",
    [
        make_report(status="too_few"),
        make_report(n_values=0),
    ],
    ids=["too few rows", "no values"],
)
def test_cause_that_cannot_be_measured_is_not_over(later, settings):
    with hook_open() as hook:
        ways = settings(ALERT_WEBHOOK=hook.url)
        alert(make_report(AREA), ways)

        assert alert(later, ways) == []
        assert alert(make_report(AREA), ways) == []
        assert len(alert(make_report(), ways)) == 1


def test_live_error_is_a_cause_that_only_new_truths_end(settings):
    with hook_open() as hook:
        ways = settings(ALERT_WEBHOOK=hook.url)
        alert(make_report(live_error=WORSE), ways)
        assert alert(make_report(), ways) == []
        alert(make_report(live_error=WORSE.model_copy(update={"is_worse": False})), ways)

    assert "r2_score: 0.61 (0.55 to 0.66 with 95 % confidence)" in hook.texts[0]
    assert "No more drift of r2_score" in hook.texts[1]


def test_way_that_fails_is_tried_again_and_the_others_are_not_doubled(settings):
    port = free_port()
    with mailbox_open() as mailbox:
        ways = settings(ALERT_WEBHOOK=f"http://127.0.0.1:{port}/{SECRET}", **mailbox.settings)
        failed = alert(make_report(AREA), ways)
        again = alert(make_report(AREA, HEATING), ways)
        with hook_open(port) as hook:
            told = alert(make_report(AREA, HEATING), ways)
            assert alert(make_report(AREA, HEATING), ways) == []

    assert failed == [
        "Told me@example.org, you@example.org by e-mail: Drift of area.",
        "WARNING: no alert by webhook. 127.0.0.1: Connection refused. Correct ALERT_WEBHOOK, or "
        "look after the service. Tried again next time.",
    ]
    assert again[0] == "Told me@example.org, you@example.org by e-mail: Drift of heating."
    assert again[1].startswith("WARNING: no alert by webhook")
    assert told == ["Told 127.0.0.1 by its webhook: Drift of area, heating."]
    assert (len(mailbox.came), len(hook.posted)) == (2, 1)


def test_end_is_told_only_where_the_beginning_was(settings):
    with mailbox_open() as mailbox:
        ways = settings(ALERT_WEBHOOK=f"http://127.0.0.1:{free_port()}/", **mailbox.settings)
        alert(make_report(AREA), ways)
        over = alert(make_report(), ways)

    assert over == ["Told me@example.org, you@example.org by e-mail: No more drift of area."]
    assert causes(ways) == []


def test_end_that_could_not_be_told_is_told_later(settings):
    with mailbox_open() as mailbox:
        ways = settings(**mailbox.settings)
        alert(make_report(AREA), ways)
    failed = alert(make_report(), ways)
    with mailbox_open(mailbox.port) as later:
        told = alert(make_report(), ways)
        assert alert(make_report(), ways) == []

    assert failed[0].startswith("WARNING: no alert by e-mail. localhost, port")
    assert len(told) == len(later.came) == 1
    assert causes(ways) == []


@pytest.mark.parametrize("status", [302, 404, 500])
def test_answer_of_a_webhook_is_told_without_its_address(status, settings):
    with hook_open(status=status) as hook:
        ways = settings(ALERT_WEBHOOK=hook.url)
        told = alert(make_report(AREA), ways)

    assert told[0].startswith(f"WARNING: no alert by webhook. 127.0.0.1 answered {status} ")
    assert SECRET not in told[0]
    assert SECRET not in Path(f"{ways.monitor_report}.alerts.json").read_text()


def test_words_from_the_data_call_nobody(settings, tmp_path):
    with hook_open() as hook, mailbox_open() as mailbox:
        issue = tmp_path / "issue.md"
        ways = settings(ALERT_WEBHOOK=hook.url, ALERT_ISSUE_FILE=str(issue), **mailbox.settings)
        alert(make_report(HEATING), ways)

    assert "(!channel) (at)all" in hook.texts[0]
    lines = [line for line in issue.read_text("utf-8").splitlines() if "@all" in line]
    assert lines == [
        "- `heating: unseen share 0.1, limit 0.01 (<!channel> @all 'solar' wood); "
        "since 2026-11-23 20:00 UTC`"
    ]


def test_issue_file_is_written_when_there_is_news_and_left_alone_else(settings, tmp_path):
    path = tmp_path / "out/issue.md"
    ways = settings(ALERT_ISSUE_FILE=str(path))
    told = alert(make_report(AREA), ways)
    assert told == [f"Wrote {path} for a GitHub issue: Drift of area."]
    assert path.read_text("utf-8").startswith("# `Drift of area`\n\n`A sentence about it.`\n")
    path.unlink()  # somebody has posted it
    assert alert(make_report(AREA), ways) == []
    assert not path.exists()
    path.parent.rmdir()
    path.parent.write_text("in the way")

    told = alert(make_report(HEATING), ways)

    assert told[0].startswith(f"WARNING: no alert by issue file. {path}: ")
    assert "Traceback" not in told[0]


def test_retraining_is_started_once_and_outlives_us(untrained):
    untrained.set_params({"sede": 3})  # which ends the run as soon as it has begun
    program = (
        "from contract.settings import read_settings\n"
        "from ops.alerts import AlertSettings, alert\n"
        "from contract.monitoring import Report\n"
        "report = Report.model_validate_json(open('report.json').read())\n"
        "for _ in range(2):\n"
        "    print(alert(report, read_settings(AlertSettings)))\n"
    )
    (untrained.root / "report.json").write_text(make_report(AREA).model_dump_json())
    run = untrained.run(sys.executable, "-Werror", "-c", program, env={"ALERT_RETRAIN": "on"})
    logs = untrained.root / "logs"
    wait_for(lambda: any("Run failed" in p.read_text() for p in logs.glob("run-*.log")), "a run")

    assert run.stdout.count("Started a run, process ") == 1
    assert run.stdout.endswith("[]\n")
    assert len(list(logs.glob("run-*.log"))) == 1


def test_retraining_waits_for_the_run_that_is_at_work(settings, tmp_path):
    ways = settings(ALERT_RETRAIN="on")
    holder = (
        "import time\n"
        "from ops.run import only_run\n"
        "with only_run():\n"
        "    print(flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        told = alert(make_report(AREA), ways)
        process.kill()

    assert told[0].startswith("WARNING: no alert by retraining. A run is at work already (process")
    assert causes(ways)[0]["told"] == []


def test_monitors_that_run_at_once_tell_once(settings, tmp_path):
    program = (
        "from contract.settings import read_settings\n"
        "from ops.alerts import AlertSettings, alert\n"
        "from tests.ops.reports import AREA, make_report\n"
        "alert(make_report(AREA), read_settings(AlertSettings))\n"
    )
    with hook_open(slow_s=0.5) as hook:
        settings()
        environment = {
            "PYTHONPATH": str(ROOT),
            "ALERT_WEBHOOK": hook.url,
            "MONITOR_REPORT": str(tmp_path / "logs/monitor.json"),
        }
        command = [sys.executable, "-c", program]
        monitors = [subprocess.Popen(command, env=environment) for _ in range(3)]
        assert [monitor.wait(timeout=30) for monitor in monitors] == [0, 0, 0]

    assert len(hook.posted) == 1


def test_damaged_state_is_begun_anew_and_told(settings):
    with hook_open() as hook:
        ways = settings(ALERT_WEBHOOK=hook.url)
        alert(make_report(AREA), ways)
        Path(f"{ways.monitor_report}.alerts.json").write_text('{"format": 9}')
        told = alert(make_report(AREA), ways)

    assert told[0].endswith("is damaged and begun anew; alerts may come again.")
    assert len(hook.posted) == 2


def test_nothing_is_told_where_it_could_not_be_remembered(settings, tmp_path):
    with hook_open() as hook:
        ways = settings(ALERT_WEBHOOK=hook.url)
        (tmp_path / "logs").write_text("in the way")
        told = alert(make_report(AREA), ways)

    assert len(told) == 1
    assert told[0].startswith("WARNING: ")
    assert "so no alert was sent" in told[0]
    assert hook.posted == []


@pytest.mark.parametrize("url", ["ftp://h/x", "https://", "http://h:port/x", "http://h/ x", "x"])
def test_address_of_no_webhook_is_refused_without_being_told(url, settings):
    with pytest.raises(SettingsError, match="ALERT_WEBHOOK has a value that cannot") as error:
        settings(ALERT_WEBHOOK=f"{url}{SECRET}" if url != "https://" else url)

    assert SECRET not in str(error.value)
