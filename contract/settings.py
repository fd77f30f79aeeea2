"""Settings of programs: the environment, completed by .env."""

import os
from pathlib import Path
from typing import TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr, ValidationError

from contract.errors import ContractError

Kind = TypeVar("Kind", bound=BaseModel)


class SettingsError(ContractError):
    """A variable of the environment has no meaning; the message is meant for the user."""


def read_env() -> None:
    """Take from .env what the environment does not set; an empty value there sets nothing.

    The file is that of the project's root, also for a queued experiment, which runs inside .dvc/.
    """
    here = Path.cwd()
    root = next((up.parent for up in here.parents if up.name == ".dvc"), here)
    for name, value in dotenv_values(root / ".env").items():
        if value:
            os.environ.setdefault(name, value)


def read_settings(kind: type[Kind]) -> Kind:
    """Read the environment and .env; raises SettingsError that names each wrong variable."""
    read_env()
    given = {name: os.environ.get(name.upper()) for name in kind.model_fields}
    try:
        return kind.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as error:
        told = [_in_words(kind, each["loc"], each["input"], each["msg"]) for each in error.errors()]
        raise SettingsError(". ".join(told) + ". Correct the environment or .env.") from None


def _in_words(kind: type[BaseModel], place: tuple, value: object, message: str) -> str:
    """Tell what is wrong with one variable; the value of a secret is not repeated."""
    if not place:  # several that do not fit together
        return message
    name = str(place[0])
    if kind.model_fields[name].annotation is SecretStr:
        return f"{name.upper()} has a value that cannot be used: {message}"
    return f"{name.upper()} is {value!r}: {message}"
