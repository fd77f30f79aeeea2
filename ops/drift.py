"""Hold a table against the accepted reference, without a run of the pipeline.

The table is that at data.source in params.yaml, or another with the same columns. Ends with 0 if
all is calm, 1 if something drifted, 2 if there are too few rows to say, and 3 if the table, the
reference or a setting cannot be used. `dvc repro` does the same at `validate`, and stops.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from contract.drift import compare
from contract.errors import ContractError
from contract.findings import Comparison
from contract.monitoring import Status
from contract.params import Params, load_params
from contract.profile import ACCEPT, REFERENCE, Profile, read_reference
from contract.profiler import axes_of, make_profile
from contract.read_table import read_table
from contract.schema import find_failures, to_readable
from contract.settings import read_env
from ops.evidently_page import expect_evidently, write_page_of_rows
from ops.predictions.command import CommandError
from ops.verdict import CODES, FAILED, N_TOLD, Parser, line_of


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m ops.drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", metavar="TABLE", help="another than data.source")
    parser.add_argument(
        "--evidently", metavar="FILE", type=Path, help="the page of Evidently, which is optional"
    )
    return parser.parse_args(arguments)


def read_accepted(rows: pd.DataFrame, params: Params) -> tuple[Profile, Profile]:
    """Give the reference and the rows' profile on its axes; raises CommandError if none fits."""
    reference = read_reference(REFERENCE) if REFERENCE.exists() else None
    if reference is None:
        raise CommandError(
            f"{REFERENCE} holds no reference to compare with. Accept rows that are as they should "
            f"be: {ACCEPT}"
        )
    current = make_profile(rows, axes_of(params.contract, reference))
    if not {*reference.axes.items()} & {*current.axes.items()}:
        raise CommandError(
            f"{REFERENCE} has no column of this contract, only {', '.join(reference.columns)}. "
            f"Accept rows of this contract: {ACCEPT}"
        )
    return reference, current


def status_of(compared: Comparison, min_rows: int) -> Status:
    if compared.findings("fail"):
        return "drifted"
    return "too_few" if min(compared.n_reference_rows, compared.n_rows) < min_rows else "calm"


def in_words(source: str, status: Status, compared: Comparison, min_rows: int) -> list[str]:
    """Tell the verdict in a sentence, then what is beyond its limit and what was not compared."""
    rows = f"{compared.n_reference_rows:,} rows accepted, {compared.n_rows:,} compared"
    failed = ", ".join(dict.fromkeys(found.subject for found in compared.findings("fail")))
    told = {
        "calm": f"{source} looks like the reference ({rows}).",
        "drifted": f"{source} has drifted from the reference in {failed} ({rows}).",
        "too_few": f"{source}: too few rows to judge, expected {min_rows:,} or more ({rows}).",
    }
    lines = [line_of(found) for found in compared.findings()[:N_TOLD]]
    return [f"{status}: {told[status]}", *lines, *(f"  note  {note}" for note in compared.notes)]


def tell(options: argparse.Namespace) -> Status:
    """Compare, say what was found, and write Evidently's page where it is asked for."""
    if options.evidently:
        expect_evidently()
    read_env()  # the settings of a store that the table may be in
    params = load_params()
    source = options.source or params.data.source
    table = read_table(params.data.model_copy(update={"source": source}), params.contract).rows
    rows = to_readable(table, params.contract)
    reference, current = read_accepted(rows, params)
    page = options.evidently
    said = write_page_of_rows(page, rows, params.contract) if page else []
    compared = compare(reference, current, params.drift)
    status = status_of(compared, params.drift.min_rows)
    lines = in_words(source, status, compared, params.drift.min_rows)
    if n_failures := len(find_failures(table, params.contract)):
        lines.append(f"  note  {n_failures:,} values break the contract; dvc repro lists them.")
    sys.stdout.write("\n".join([*lines, *said, ""]))
    return status


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        status = tell(options)
    except (ContractError, CommandError, OSError) as error:
        sys.stderr.write(f"ERROR: {error}\n")
        sys.exit(FAILED)
    sys.exit(CODES[status])


if __name__ == "__main__":
    main()
