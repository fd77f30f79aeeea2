"""Settings of programs: the environment, completed by .env."""

import os
from pathlib import Path

from dotenv import dotenv_values


def read_env() -> None:
    """Take from .env what the environment does not set; an empty value there sets nothing.

    The file is that of the project's root, also for a queued experiment, which runs inside .dvc/.
    """
    here = Path.cwd()
    root = next((up.parent for up in here.parents if up.name == ".dvc"), here)
    for name, value in dotenv_values(root / ".env").items():
        if value:
            os.environ.setdefault(name, value)
