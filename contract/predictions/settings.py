"""Where the prediction log is, and what of the features it holds; from the environment."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from contract.predictions.address import URL_FORM, DatabaseAddress

OFF = "off"


class LogSettings(BaseModel, frozen=True):
    """Settings of all who write or read the log; .env.example says what each means."""

    prediction_log: str = "logs/predictions.db"  # or "off"
    prediction_log_sync: Literal["normal", "full"] = "normal"
    prediction_log_keep_days: Annotated[float, Field(ge=0)] = 30  # once delivered
    prediction_log_features: str = "on"  # or "off", "hash", or the names of those to hash
    prediction_log_key: SecretStr = SecretStr("")  # of the hashes
    database_url: SecretStr = SecretStr("")
    db_endpoint: str = ""
    db_port: Annotated[int, Field(ge=1, le=65535)] = 5432
    db_name: str = ""
    db_user: str = ""
    db_password: SecretStr = SecretStr("")

    @field_validator("database_url")
    @classmethod
    def _expect_url(cls, secret: SecretStr) -> SecretStr:
        url = secret.get_secret_value()
        try:
            parts = urlsplit(url)
            # an @ so late stands behind a / of the password, which would be shown as a name
            is_url = parts.scheme in {"postgresql", "postgres"} and "@" not in parts.path
            is_url = is_url and parts.port != 0
        except ValueError:  # its port is no number
            is_url = False
        if url and not (is_url and (parts.hostname or "host=" in parts.query)):
            raise PydanticCustomError("url", f"expected {URL_FORM}, with %2F for / and the like")
        return secret

    @model_validator(mode="after")
    def _expect_all_of_the_five(self) -> Self:
        given = {name: getattr(self, name) for name in ("db_endpoint", "db_name", "db_user")}
        missing = [name.upper() for name, value in given.items() if not value]
        if 0 < len(missing) < len(given) and not self.database_url.get_secret_value():
            message = f"{' and '.join(missing)} missing, expected with the other DB_ variables"
            raise PydanticCustomError("database", message)
        if self.database is not None and self.log_path is None:
            message = "PREDICTION_LOG is off, expected a path: a database is filled from that file"
            raise PydanticCustomError("database", message)
        return self

    @property
    def log_path(self) -> Path | None:
        return None if self.prediction_log == OFF else Path(self.prediction_log)

    @property
    def database(self) -> DatabaseAddress | None:
        """Give the database to which the log is delivered; None if there is none."""
        if url := self.database_url.get_secret_value():
            return DatabaseAddress(url)
        if not self.db_endpoint:
            return None
        user, password = quote(self.db_user, ""), quote(self.db_password.get_secret_value(), "")
        host = f"[{self.db_endpoint}]" if ":" in self.db_endpoint else self.db_endpoint
        return DatabaseAddress(
            f"postgresql://{user}:{password}@{host}:{self.db_port}/{quote(self.db_name, '')}"
        )
