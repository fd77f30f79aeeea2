"""Accept the rows at hand as the reference that new data is held against.

`python -m ops.accept` shows them beside the reference so far; with `--yes` it writes
data/reference.json. A person runs this, no stage does, so that what data is judged by never
follows from the data itself. Commit the file that it writes.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from contract.drift import compare
from contract.errors import ContractError
from contract.findings import Finding
from contract.params import Params, load_params
from contract.profile import ACCEPT, REFERENCE, ColumnProfile, Profile, read_reference
from contract.profiler import axes_of, make_profile
from contract.rows import read_rows
from contract.schema import find_failures, to_typed

ROWS = Path("data/interim/rows.parquet")
N_SHARES = 8  # categories that are shown of a column
MARKS = {"warn": " *", "fail": " **", None: ""}


class AcceptError(ValueError):
    """The rows cannot be accepted; the message is meant for the user."""


def profile_rows(params: Params, reference: Profile | None) -> tuple[Profile, Profile]:
    """Profile the rows of `ingest` on the contract's own axes, and on those of the reference.

    Raises AcceptError if they break the contract, as no run would learn from them.
    """
    table = read_rows(ROWS)
    if failures := len(find_failures(table, params.contract)):
        raise AcceptError(
            f"{params.data.source}: {failures} values break the contract, so the rows cannot be a "
            "reference. `dvc repro validate` lists them."
        )
    rows = to_typed(table, params.contract)
    profiles = (make_profile(rows, axes_of(params.contract, on)) for on in (None, reference))
    return next(profiles), next(profiles)


def expect_fresh_rows(source: str) -> None:
    """Ask DVC whether the rows are those of the source; raises AcceptError if not."""
    command = [sys.executable, "-m", "dvc", "status", "--quiet", "ingest"]
    if not ROWS.exists() or subprocess.run(command, capture_output=True).returncode:
        raise AcceptError(f"{ROWS} is not made of {source} yet. Run: dvc repro ingest")


def side_by_side(old: Profile | None, new: Profile, params: Params, comparable: Profile) -> str:
    """Show both profiles column by column, and how far the new one is from the old."""
    lines = [f"{'':<34}{'reference':>22}{'these rows':>22}"]
    lines.append(_line("rows", old.n_rows if old else "none", new.n_rows))
    found: dict[str, list[Finding]] = {}
    compared = compare(old, comparable, params.drift) if old else None
    for each in compared.measured if compared else ():
        found.setdefault(each.subject, []).append(each)
    for name, column in new.columns.items():
        before = old.columns.get(name) if old else None
        lines += ["", f"{name} ({column.kind})", *_of_column(before, column)]
        lines += [_drift_line(each) for each in found.pop(name, [])]
    for subject, pair in found.items():
        if any(each.action for each in pair):
            lines += ["", subject, *(_drift_line(each) for each in pair)]
    if compared:
        lines += ["", *compared.notes, "* beyond the limit that warns, ** that stops a run"]
    return "\n".join(lines)


def _of_column(old: ColumnProfile | None, new: ColumnProfile) -> list[str]:
    before = _figures(old) if old and old.kind == new.kind else {}
    return [_line(f"  {key}", before.get(key, "none"), v) for key, v in _figures(new).items()]


def _figures(column: ColumnProfile) -> dict[str, str]:
    told = {"values": f"{column.n_values}", "gaps": f"{column.n_gaps}"}
    if column.kind == "numeric":
        told |= {"mean": _number(column.mean), "standard deviation": _number(column.std)}
        return told | {f"quantile {q}": _number(value) for q, value in column.quantiles.items()}
    shares = sorted(column.shares.items(), key=lambda pair: -pair[1])[:N_SHARES]
    return told | {f"share of {category}": f"{share:.1%}" for category, share in shares}


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _line(what: str, old: object, new: object) -> str:
    return f"{what:<34}{old!s:>22}{new!s:>22}"


def _drift_line(found: Finding) -> str:
    mark = MARKS[found.action]
    return f"{'  ' + found.measure.replace('_', ' '):<56}{found.value:>22.4f}{mark}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=ACCEPT, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--yes", action="store_true", help=f"write {REFERENCE}")
    options = parser.parse_args(arguments)
    try:
        params = load_params()
        old = _old(options.yes)
        expect_fresh_rows(params.data.source)
        new, comparable = profile_rows(params, old)
        if not new.n_rows:
            raise AcceptError(f"{params.data.source} has no row, so it cannot be a reference.")
        table = side_by_side(old, new, params, comparable)
        if options.yes:
            REFERENCE.parent.mkdir(parents=True, exist_ok=True)
            REFERENCE.write_text(new.to_json(), "utf-8")
    except (ContractError, AcceptError, OSError) as error:
        sys.exit(f"ERROR: {error}")
    done = f"{REFERENCE} now describes {params.data.source}; commit it."
    to_do = f"Nothing is written yet. If new data should look like these rows: {ACCEPT} --yes"
    sys.stdout.write(f"{table}\n\n{done if options.yes else to_do}\n")


def _old(overwrite: bool) -> Profile | None:
    """Read the reference so far; a damaged one must not keep anyone from writing it anew."""
    try:
        return read_reference(REFERENCE)
    except (ContractError, FileNotFoundError):
        if overwrite:
            return None
        raise


if __name__ == "__main__":
    main()
