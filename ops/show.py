"""Tell how the last run ended: the model in models/final, its scores and where to look next."""

import sys

from contract.artifact import FINAL, load_model
from contract.errors import ContractError


def summary() -> str:
    """Describe the exported model; raises ContractError if there is none that loads."""
    manifest = load_model(FINAL).manifest
    unit = manifest.contract.target.unit
    scores = "\n".join(f"  {name:<28}{value:g}" for name, value in manifest.metrics.items())
    return f"""
The model is in {FINAL}/: {manifest.candidate}, version {manifest.version}, as {manifest.format}.
It predicts {manifest.contract.target.name}; on the test rows:
{scores}
A prediction is told with +- {manifest.interval.half_width:g} {unit}, meant to hold \
{manifest.interval.level:.0%} of new rows.
  the model card              {FINAL}/README.md
  the picture of the run      metrics/evaluate/overview.svg
  all plots in a browser      dvc plots show --open
"""


def main() -> None:
    try:
        sys.stdout.write(summary())
    except ContractError as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main()
