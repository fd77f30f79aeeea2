"""Settings of alerts, read from the environment as the monitor reads them."""

import pytest

from contract.settings import read_settings
from ops.alerts import AlertSettings


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
