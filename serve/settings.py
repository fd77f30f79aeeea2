"""Settings of the server, from the environment; .env.example says what each means."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ByteSize, Field
from pydantic_core import PydanticCustomError

from contract.artifact import FINAL
from contract.monitoring import REPORT
from contract.predictions.settings import LogSettings

if TYPE_CHECKING:
    from limits import RateLimitItem


def _rate(text: str) -> "RateLimitItem":
    from limits import parse  # takes a while, and few need it

    try:
        return parse(text)
    except ValueError as error:
        raise PydanticCustomError("rate", "expected a rate such as 60/minute") from error


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[ByteSize, Field(ge=1)]


class Place(BaseModel, frozen=True):
    """Where gunicorn listens, and what it may use."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    workers: Count = 2
    threads: Count = 4  # in each worker
    queue: Annotated[int, Field(ge=0)] = 64  # requests that may wait for them
    patience_s: Annotated[float, Field(gt=0)] = 10  # for a request to come
    keep_alive_s: Count = 5  # for the next one
    graceful_s: Count = 30  # to end what is in flight


class Settings(LogSettings, frozen=True):
    """What the app may do, and where its files are."""

    model_folder: Path = FINAL
    model_poll_s: Annotated[float, Field(gt=0)] = 1.0
    max_json_bytes: Size = ByteSize(2 * 2**20)
    max_json_rows: Count = 10_000
    max_upload_bytes: Size = ByteSize(500 * 2**20)
    max_unpacked_bytes: Size = ByteSize(2 * 2**30)
    max_columns: Count = 1_000
    rate_limit: Annotated[Any, BeforeValidator(_rate)] = None  # a RateLimitItem
    trusted_hosts: Words = ()
    trusted_proxies: Annotated[int, Field(ge=0)] = 0
    metrics_token: str = ""
    monitor_token: str = ""
    monitor_report: Path = REPORT
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
