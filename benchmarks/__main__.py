"""Measure pipeline, server and the detection of drift, and write benchmarks/results.md.

`python -m benchmarks [--only SECTION] [--quick] [--output PATH]`
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.batches import measure_batch
from benchmarks.drift import measure_drift
from benchmarks.faults import measure_faults
from benchmarks.long_log import measure_long_log, measure_monitor
from benchmarks.peers import measure_peers
from benchmarks.report import RESULTS, Section, update
from benchmarks.reruns import measure_cold, measure_growth, measure_noop, measure_one_grid
from benchmarks.searches import measure_fits, measure_halving
from benchmarks.server import (
    measure_json,
    measure_rush,
    measure_slow,
    measure_start,
    measure_stop,
)
from benchmarks.swaps import measure_damage, measure_requests, measure_swaps

SECTIONS: dict[str, Callable[[bool], Section]] = {
    "noop": measure_noop,
    "one_grid": measure_one_grid,
    "cold": measure_cold,
    "fits": measure_fits,
    "halving": measure_halving,
    "growth": measure_growth,
    "json": measure_json,
    "start": measure_start,
    "rush": measure_rush,
    "slow": measure_slow,
    "stop": measure_stop,
    "batch": measure_batch,
    "swaps": measure_swaps,
    "damage": measure_damage,
    "requests": measure_requests,
    "peers": measure_peers,
    "faults": measure_faults,
    "long_log": measure_long_log,
    "drift": measure_drift,
    "monitor": measure_monitor,
}
ON_REQUEST = {"peers", "faults"}  # installs what nothing else here needs; is part of `make chaos`

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, help="measure one section, keep the others")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where (%(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    usual = [name for name in SECTIONS if name not in ON_REQUEST]
    for name in [options.only] if options.only else usual:
        logger.info("measuring: %s", name)
        update(options.output, name, SECTIONS[name](options.quick), options.quick)


if __name__ == "__main__":
    main()
