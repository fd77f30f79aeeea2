"""Run the whole pipeline anew and compare with what is committed: results, and dvc.lock."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

LOCK = Path("dvc.lock")
BINARY = ("data/interim/", "data/split/", "models/")  # whose last bits another processor may change
HASHES = ("md5", "size", "nfiles")

logger = logging.getLogger(__name__)


def without_binary_hashes(lock: str) -> dict[str, Any]:
    """Read a dvc.lock, leaving out what may differ between processors."""
    stages = YAML(typ="safe").load(lock)["stages"]
    for stage in stages.values():
        for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
            if entry["path"].startswith(BINARY):
                for key in HASHES:
                    entry.pop(key, None)
    return stages


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--force"], check=True)
    problems = []
    if changed := git("status", "--porcelain", "--", "metrics"):
        problems.append(f"These results are not what the committed code gives:\n{changed}")
    if without_binary_hashes(LOCK.read_text("utf-8")) != without_binary_hashes(
        git("show", f"HEAD:{LOCK}")
    ):
        problems.append(f"{LOCK} is not that of the committed code:\n" + git("diff", str(LOCK)))
    if problems:
        sys.exit("\n".join([*problems, "Run `make repro` and commit what it changes."]))
    logger.info("The committed results are those of the committed code.")


if __name__ == "__main__":
    main()
