"""Put right what a DVC that was killed has left torn, so that the next run can begin.

DVC rewrites two files in place, dvc.lock after every stage and its notes of who reads and writes
what. Killed just then, it leaves half a file or an empty one, and every later DVC refuses to work.
Nothing is lost by taking back the one and forgetting the other: what was run since is in its cache.
"""

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML, YAMLError
from voluptuous import Invalid

RUNNING = Path(".dvc/tmp/lock")  # locked by a DVC while it may write the files below
READERS_AND_WRITERS = Path(".dvc/tmp/rwlock")
RESULTS = Path("dvc.lock")


def mend() -> Iterator[str]:
    """Put right each torn file, and tell of it."""
    if READERS_AND_WRITERS.exists() and not is_json(READERS_AND_WRITERS):
        READERS_AND_WRITERS.unlink()
        yield f"{READERS_AND_WRITERS} was torn when DVC was killed; removed it."
    if RESULTS.exists() and not is_accepted_by_dvc(RESULTS):
        committed = subprocess.run(["git", "show", f"HEAD:./{RESULTS}"], capture_output=True)
        if committed.returncode == 0:
            RESULTS.write_bytes(committed.stdout)
        else:
            RESULTS.unlink()
        yield f"{RESULTS} was torn when DVC was killed; took it back from the last commit."


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True


def is_accepted_by_dvc(path: Path) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(path))
    except (YAMLError, Invalid, UnicodeDecodeError):
        return False
    return True


def main() -> None:
    if not RUNNING.exists():
        return  # no DVC has ever run here
    with RUNNING.open("r+") as running:
        try:
            fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another DVC is at work, and its files are only unfinished
        for line in mend():
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
