"""The rows that an exported model was trained on, where they are on this disk."""

from pathlib import Path

import pandas as pd

from contract.artifact import FINAL, load_train_profile
from contract.features import Contract
from contract.profile import Profile
from contract.profiler import make_profile
from contract.rows import read_rows
from ops.predictions.command import CommandError

TRAIN_ROWS = Path("data/split/train.parquet")


def read_train_rows(folder: Path = FINAL) -> pd.DataFrame:
    """Read the train split, typed; raises CommandError that says how to get the model's own.

    That they are the model's is known by their profile, which lies beside the model.
    """
    manifest, profile = load_train_profile(folder)
    needed = f"the rows that model {manifest.version} of {folder} was trained on"
    if not TRAIN_ROWS.exists():
        raise CommandError(
            f"{TRAIN_ROWS} is not here, expected {needed}. Fetch them with "
            f"`dvc pull {TRAIN_ROWS}` if they were pushed, or make rows and model: make repro"
        )
    try:
        rows = read_rows(TRAIN_ROWS)
    except ValueError as error:  # of pyarrow
        raise CommandError(
            f"{TRAIN_ROWS} cannot be read: {error}. Take it anew: dvc checkout --force {TRAIN_ROWS}"
        ) from error
    if not _is_of(rows, manifest.contract, profile):
        raise CommandError(
            f"{TRAIN_ROWS} does not hold {needed}. Take both from one commit, with `git checkout` "
            "of it and `dvc checkout`, or make both anew: make repro"
        )
    return rows


def _is_of(rows: pd.DataFrame, contract: Contract, profile: Profile) -> bool:
    """Say whether a profile sums up these rows."""
    names = [column.name for column in contract.columns]
    if not {*names} <= {*rows.columns} & profile.columns.keys():
        return False
    axes = {name: profile.axes[name] for name in names}
    found = make_profile(rows, axes)
    return found.pairs == profile.pairs and all(
        found.columns[name] == profile.columns[name] for name in names
    )
