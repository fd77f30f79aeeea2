"""Hold the rows against the contract; a broken one stops the run with all failures at once."""

from pathlib import Path

import pandas as pd

from contract.figures import write_figures
from contract.params import load_params
from contract.rows import read_rows, write_rows
from contract.schema import find_failures, to_typed
from stages.start import StageError, start

ROWS = Path("data/interim/rows.parquet")
VALID_ROWS = Path("data/interim/valid.parquet")
METRICS = Path("metrics/validation.json")
N_TOLD = 20  # failures that the message lists
N_RECORDED = 1000  # failures that the report lists


def report(table: pd.DataFrame, failures: pd.DataFrame) -> dict:
    """Sum up the check: rows, gaps by column, failures by column and rule, and the first ones."""
    by_rule = failures.groupby(["column", "rule"], sort=True).size()
    return {
        "n_rows": len(table),
        "n_gaps": {name: int(n) for name, n in table.isna().sum().items()},
        "n_failures": len(failures),
        "failures_by_rule": {f"{column}: {rule}": int(n) for (column, rule), n in by_rule.items()},
        "failures": failures.head(N_RECORDED).to_dict("records"),
    }


def in_words(source: str, failures: pd.DataFrame) -> str:
    """List the first failures as a table, with what to do about them."""
    told = failures.head(N_TOLD).fillna({"value": ""}).to_string(index=False)
    more = f"\n... and {len(failures) - N_TOLD} more" if len(failures) > N_TOLD else ""
    return (
        f"{source}: {len(failures)} values break the contract.\n{told}{more}\n"
        f"Correct the lines, or widen the contract in params.yaml if such values are real. "
        f"{METRICS} lists up to {N_RECORDED} of them."
    )


def main() -> None:
    params = load_params()
    table = read_rows(ROWS)

    failures = find_failures(table, params.contract)

    write_figures(METRICS, report(table, failures))
    if len(failures):
        raise StageError(in_words(params.data.source, failures))
    write_rows(to_typed(table, params.contract), VALID_ROWS)


if __name__ == "__main__":
    start(main)
