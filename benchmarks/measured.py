"""Stand in for `python` on the path: run the real one, and record what the process cost.

Started by file name with the standard library alone, so that it adds next to nothing itself.
Appends a line of JSON to the file in BENCHMARK_COSTS; the real one is BENCHMARK_PYTHON.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

SAMPLE_EVERY_S = 0.1


def _family(pid: int) -> list[int]:
    """List a process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]  # it has ended
    return [pid, *(member for child in children for member in _family(int(child)))]


def _memory_mb(pid: int) -> float:
    """Give a process's memory, of which what it shares is counted to it in part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _sample(pid: int, seen: dict[str, float]) -> None:
    """Follow a process that starts others, whose memory adds up; one alone costs nothing."""
    while True:
        family = _family(pid)
        if len(family) > 1:
            seen["n_processes"] = max(seen["n_processes"], len(family))
            seen["peak_mb"] = max(seen["peak_mb"], sum(map(_memory_mb, family)))
        time.sleep(SAMPLE_EVERY_S)


def main() -> None:
    python = os.environ["BENCHMARK_PYTHON"]
    seen = {"n_processes": 1, "peak_mb": 0.0}
    began = time.perf_counter()
    pid = os.posix_spawn(python, [python, *sys.argv[1:]], os.environ)
    threading.Thread(target=_sample, args=[pid, seen], daemon=True).start()
    _, status, usage = os.wait4(pid, 0)  # with all children that it waited for
    cost = {
        "arguments": sys.argv[1:],
        "wall_s": time.perf_counter() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": max(seen["peak_mb"], usage.ru_maxrss / 1024),
        "n_processes": seen["n_processes"],
    }
    with Path(os.environ["BENCHMARK_COSTS"]).open("a") as file:
        file.write(json.dumps(cost) + "\n")
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
