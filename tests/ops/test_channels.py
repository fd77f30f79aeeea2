"""Each way of an alert: what leaves, and what never does."""

import subprocess
import sys
from pathlib import Path

import pytest

from contract.settings import SettingsError
from ops.alerts import alert
from tests.example import ROOT
from tests.ops.hooks import SECRET, causes, hook_open
from tests.ops.mailbox import mailbox_open
from tests.ops.reports import AREA, HEATING, make_report
from tests.ops.test_run import wait_for


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


@pytest.mark.parametrize("url", ["ftp://h/x", "https://", "http://h:port/x", "http://h/ x", "x"])
def test_address_of_no_webhook_is_refused_without_being_told(url, settings):
    with pytest.raises(SettingsError, match="ALERT_WEBHOOK has a value that cannot") as error:
        settings(ALERT_WEBHOOK=f"{url}{SECRET}" if url != "https://" else url)

    assert SECRET not in str(error.value)
