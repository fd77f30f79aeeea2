"""Make or re-make the tables in PostgreSQL, and the view with one typed column a feature."""

import argparse

from contract.artifact import FINAL, ArtifactError, read_manifest
from contract.features import Contract
from contract.predictions import database
from contract.predictions.settings import LogSettings
from ops.predictions.command import CommandError, note, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grant-to", metavar="ROLE", default="", help="the role of the server, to add and read"
    )


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    if settings.database is None:
        raise CommandError(
            "There is no database to migrate: set DATABASE_URL, with a role that owns the tables."
        )
    for done in database.migrate(settings.database, _contract(), options.grant_to):
        say(done)


def _contract() -> Contract | None:
    try:
        return read_manifest(FINAL).contract
    except ArtifactError as error:
        note(f"Only the tables, not the view, which follows the model's contract: {error}")
        return None
