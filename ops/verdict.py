"""How the programs that judge drift end, and the words that they share."""

import argparse
from typing import NoReturn

from contract.findings import Finding
from contract.monitoring import Status, Told

CODES: dict[Status, int] = {"calm": 0, "drifted": 1, "too_few": 2}
FAILED = 3
N_TOLD = 10


class Parser(argparse.ArgumentParser):
    """Ends with the code of a failure; argparse's own, 2, would say that there are too few rows."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.format_usage()}ERROR: {message}\n")


def line_of(found: Finding | Told) -> str:
    """Tell in a line what is beyond its limit."""
    measure = found.measure.replace("_", " ")
    return (
        f"  {found.action:<5} {found.subject}: {measure} "
        f"{found.value:.3g}, limit {found.limit:.3g} ({found.detail})"
    )
