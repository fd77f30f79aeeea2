"""Measure the pipeline's speed and write benchmarks/results.md.

`python -m benchmarks.pipeline [--only SECTION] [--quick] [--output PATH]`
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.report import RESULTS, Section, update
from benchmarks.reruns import measure_cold, measure_growth, measure_noop, measure_one_grid
from benchmarks.searches import measure_fits, measure_halving

SECTIONS: dict[str, Callable[[bool], Section]] = {
    "noop": measure_noop,
    "one_grid": measure_one_grid,
    "cold": measure_cold,
    "fits": measure_fits,
    "halving": measure_halving,
    "growth": measure_growth,
}

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, help="measure one section, keep the others")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where (%(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in [options.only] if options.only else SECTIONS:
        logger.info("measuring: %s", name)
        update(options.output, name, SECTIONS[name](options.quick), options.quick)


if __name__ == "__main__":
    main()
