"""Make the exported model the champion, with which the next ones are compared.

A person runs this once the model is in service; no stage does, so that what a run is judged by
never follows from the run itself. Commit the file that it writes.
"""

import argparse
import sys
from pathlib import Path

from ruamel.yaml import YAML

from contract.artifact import FINAL, Manifest, load_model
from contract.champion import CHAMPION, Champion, read_champion
from contract.errors import ContractError

LOCK = Path("dvc.lock")


class PromoteError(ValueError):
    """The model cannot be promoted; the message is meant for the user."""


def artifact_md5(lock: Path) -> str:
    """Look up the name of models/final in DVC's cache."""
    if not lock.exists():
        raise PromoteError(f"{lock} does not exist. Run `make repro` first.")
    export = YAML(typ="safe").load(lock)["stages"].get("export", {})
    for out in export.get("outs", []):
        if out["path"] == str(FINAL):
            return out["md5"]
    raise PromoteError(f"{lock} has no {FINAL}. Run `make repro` until a model is exported.")


def make_champion(manifest: Manifest, md5: str) -> Champion:
    return Champion(
        version=manifest.version,
        candidate=manifest.candidate,
        metrics=manifest.metrics,
        test_rows_sha256=manifest.test_rows_sha256,
        artifact_md5=md5,
    )


def side_by_side(old: Champion | None, new: Champion) -> str:
    """Show both champions' figures in a table."""
    before = old.metrics if old else {}
    lines = [f"{'':<30}{'champion':>16}{'new':>16}"]
    lines.append(f"{'version':<30}{old.version if old else 'none':>16}{new.version:>16}")
    lines.append(f"{'candidate':<30}{old.candidate if old else 'none':>16}{new.candidate:>16}")
    for name, value in new.metrics.items():
        known = f"{before[name]:g}" if name in before else "n/a"
        lines.append(f"{name:<30}{known:>16}{value:>16g}")
    if old and old.test_rows_sha256 != new.test_rows_sha256:
        lines.append("The figures were taken on different test rows.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.parse_args()
    try:
        new = make_champion(load_model(FINAL).manifest, artifact_md5(LOCK))
        table = side_by_side(read_champion(CHAMPION), new)
        CHAMPION.write_text(new.model_dump_json(indent=2) + "\n", "utf-8")
    except (ContractError, PromoteError, OSError) as error:
        sys.exit(f"ERROR: {error}")
    sys.stdout.write(f"{table}\n{CHAMPION} now names {new.version}; commit it.\n")


if __name__ == "__main__":
    main()
