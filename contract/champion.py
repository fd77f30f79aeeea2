"""The model in service, as data/champion.json records it: what a new one is compared with."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from contract.errors import ContractError

CHAMPION = Path("data/champion.json")


class Champion(BaseModel, frozen=True, extra="forbid"):
    """Written by `python -m ops.promote` alone, so that a person decides what is in service."""

    version: str
    candidate: str
    metrics: dict[str, float]  # as measured on its test rows
    test_rows_sha256: str
    artifact_md5: str  # of models/final in DVC's cache, to score it on other rows


def read_champion(path: Path = CHAMPION) -> Champion | None:
    """Read the champion; None while there is none, which the file says by `{}`."""
    text = path.read_text("utf-8")
    if text.strip() == "{}":
        return None
    try:
        return Champion.model_validate_json(text)
    except ValidationError as error:
        raise ContractError(
            f"{path} is not a champion's record: {error}. "
            "Write it with `python -m ops.promote`, or empty it to {}."
        ) from error
