"""Hold the rows against the contract and against the reference; one report names what is wrong."""

import logging
from pathlib import Path

import pandas as pd

from contract.figures import write_figures
from contract.params import Params, load_params
from contract.profile import REFERENCE, Profile, read_reference
from contract.rows import read_rows, write_rows
from contract.schema import find_failures, to_readable, to_typed
from stages.draw_drift import draw_columns
from stages.start import StageError, start
from stages.tell_drift import Drifted, drift_in_words, nearest_to_limits, sum_up_drift

logger = logging.getLogger(__name__)

ROWS = Path("data/interim/rows.parquet")
VALID_ROWS = Path("data/interim/valid.parquet")
METRICS = Path("metrics/validation.json")
DRIFT = Path("metrics/drift.json")
DRIFT_PLOTS = Path("metrics/drift")
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


def measure_drift(table: pd.DataFrame, reference: Profile | None, params: Params) -> Drifted:
    """Compare the rows that can be read with the reference, where there is one."""
    if not params.drift.enabled:
        return Drifted("Drift was not measured: drift.enabled is false in params.yaml.")
    if reference is None:
        return Drifted(
            f"Drift was not measured: {REFERENCE} holds no reference yet. "
            "See what these rows look like, and accept them: python -m ops.accept"
        )
    rows = to_readable(table, params.contract)
    if rows.empty:
        return Drifted("Drift was not measured: there is no row whose numbers can be read.")
    from contract.drift import compare  # scipy, which takes longer to import than all else here
    from contract.profiler import axes_of, make_profile

    current = make_profile(rows, axes_of(params.contract, reference))
    comparison = compare(reference, current, params.drift)
    status = f"Compared with {REFERENCE}."
    if not comparison.measured:
        status = (
            f"Drift was not measured: {REFERENCE} and the rows have no column in common that holds "
            "values. See what these rows look like, and accept them: python -m ops.accept"
        )
    return Drifted(status, reference, current, comparison)


def write_drift(drift: Drifted) -> None:
    write_figures(DRIFT, sum_up_drift(drift))
    DRIFT_PLOTS.mkdir(parents=True, exist_ok=True)
    nearest_to_limits(drift).to_csv(DRIFT_PLOTS / "measures.csv", index=False)
    for name, svg in draw_columns(drift).items():
        (DRIFT_PLOTS / f"{name}.svg").write_text(svg, "utf-8")


def main() -> None:
    params = load_params()
    table = read_rows(ROWS)
    reference = read_reference(REFERENCE)

    failures = find_failures(table, params.contract)
    drift = measure_drift(table, reference, params)

    write_figures(METRICS, report(table, failures))
    write_drift(drift)
    logger.info(drift.status)
    for line in [*drift.notes, *drift_in_words(drift, "warn")]:
        logger.warning(line)
    problems = [in_words(params.data.source, failures)] if len(failures) else []
    if lines := drift_in_words(drift, "fail"):
        problems.append("\n".join([f"{params.data.source} {lines[0]}", *lines[1:]]))
    if problems:
        raise StageError("\n\n".join(problems))
    write_rows(to_typed(table, params.contract), VALID_ROWS)


if __name__ == "__main__":
    start(main)
