"""Make or re-make the tables in PostgreSQL, and the view with one typed column a feature."""

import argparse
from pathlib import Path

from pydantic import BaseModel

from contract.artifact import FINAL, ArtifactError, read_manifest
from contract.features import Contract
from contract.predictions.migration import migrate
from contract.predictions.settings import LogSettings
from contract.settings import read_settings
from ops.predictions.command import CommandError, note, say


class Model(BaseModel, frozen=True):
    """Which model the server has, by the variable that the server reads, too."""

    model_folder: Path = FINAL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grant-to", metavar="ROLE", default="", help="the role of the server, to add and read"
    )


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    if settings.database is None:
        raise CommandError(
            "There is no database to migrate: set DATABASE_URL, with a role that owns the tables."
        )
    contract = _contract(read_settings(Model).model_folder)
    for done in migrate(settings.database, contract, options.grant_to):
        say(done)


def _contract(folder: Path) -> Contract | None:
    try:
        return read_manifest(folder).contract
    except ArtifactError as error:
        note(f"Only the tables, not the view, which follows the model's contract: {error}")
        return None
