"""Alerts: one for each cause until it is over, on each way, whatever fails meanwhile."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.alerts import alert
from tests.example import ROOT
from tests.ops.hooks import causes, hook_open
from tests.ops.mailbox import mailbox_open
from tests.ops.reports import AREA, HEATING, WORSE, make_report
from tests.serve.servers import free_port

WARNED = AREA.model_copy(update={"action": "warn", "value": 0.2})


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
        ways = settings(ALERT_WEBHOOK=f"http://127.0.0.1:{port}/", **mailbox.settings)
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
