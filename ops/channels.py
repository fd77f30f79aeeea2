"""Ways on which an alert leaves: e-mail, a webhook, a file for a GitHub issue, a new run."""

import http.client
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import SecretStr, field_validator
from pydantic_core import PydanticCustomError

from ops.mail import MailError, MailSettings, send_mail
from ops.run import who_runs
from ops.whole_file import write_whole

WEBHOOK_ADVICE = "Correct ALERT_WEBHOOK, or look after the service."
PATIENCE_S = 10.0  # for the webhook's service
# else a word from the data could call everybody in a room: <!channel>, @channel
NO_MENTION = str.maketrans({"<": "(", ">": ")", "@": "(at)"})


class ChannelError(ValueError):
    """One way is blocked; the message says why, and holds no secret."""


class ChannelSettings(MailSettings, frozen=True):
    """Which ways there are; all of them are off until set."""

    alert_webhook: SecretStr = SecretStr("")  # whoever knows it may post
    alert_issue_file: Path | None = None
    alert_retrain: Literal["on", "off"] = "off"

    @field_validator("alert_webhook")
    @classmethod
    def _expect_url(cls, secret: SecretStr) -> SecretStr:
        url = secret.get_secret_value()
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:  # its port is no number
            is_url = False
        if url and not (is_url and url.isascii() and url.isprintable() and " " not in url):
            raise PydanticCustomError("url", "expected an address such as https://host/path")
        return secret


@dataclass(frozen=True)
class Message:
    """What is told: one line, plain text, and the same in Markdown."""

    subject: str
    text: str
    markdown: str


@dataclass(frozen=True)
class Channel:
    """One way; `send` gives what was done in a sentence, or raises ChannelError."""

    name: str
    send: Callable[[Message], str]
    tells_of_clearing: bool = True


def open_channels(settings: ChannelSettings) -> list[Channel]:
    """Give the ways that are set."""
    channels = []
    if settings.sends_mail:
        channels.append(Channel("e-mail", lambda told: _mail(settings, told)))
    if url := settings.alert_webhook.get_secret_value():
        channels.append(Channel("webhook", lambda told: _post(url, told)))
    if path := settings.alert_issue_file:
        channels.append(Channel("issue file", lambda told: _write_issue(path, told)))
    if settings.alert_retrain == "on":
        channels.append(Channel("retraining", lambda _: _retrain(), tells_of_clearing=False))
    return channels


def _mail(settings: MailSettings, told: Message) -> str:
    try:
        send_mail(settings, told.subject, told.text)
    except MailError as error:
        raise ChannelError(str(error)) from None
    return f"Told {settings.mail_to} by e-mail: {told.subject}."


class _NoRedirect(HTTPRedirectHandler):
    """Takes a redirection for the failure that it is: the message would be lost on its way."""

    def redirect_request(self, *_: object) -> None:
        return None


def _post(url: str, told: Message) -> str:
    """Post {"text": ...}, which Slack, Mattermost, Google Chat and the like show."""
    host = urlsplit(url).hostname
    text = f"{told.subject}\n\n{told.text}".translate(NO_MENTION)
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "monitor"}
    request = Request(url, json.dumps({"text": text}).encode(), headers)  # noqa: S310, see settings
    try:
        with build_opener(_NoRedirect).open(request, timeout=PATIENCE_S):
            pass
    except HTTPError as error:
        error.close()
        known = http.client.responses.get(error.code, "")  # its own words may repeat the address
        raise ChannelError(f"{host} answered {error.code} {known}. {WEBHOOK_ADVICE}") from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise ChannelError(f"{host}: {_reason(error)}. {WEBHOOK_ADVICE}") from None
    return f"Told {host} by its webhook: {told.subject}."


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer for {PATIENCE_S:g} s"
    return getattr(cause, "strerror", None) or type(cause).__name__


def _write_issue(path: Path, told: Message) -> str:
    try:
        write_whole(path, told.markdown)
    except OSError as error:
        raise ChannelError(f"{path}: {error.strerror}. Correct ALERT_ISSUE_FILE.") from None
    return f"Wrote {path} for a GitHub issue: {told.subject}."


def _retrain() -> str:
    """Start a run that outlives us; it keeps its own log, and is the only one by itself."""
    try:
        if who := who_runs():
            raise ChannelError(f"A run is at work already ({who}), and may not know the new data.")
        pid = _detach([sys.executable, "-m", "ops.run"])
    except OSError as error:
        raise ChannelError(f"No run can be started, {error.strerror}.") from None
    return f"Started a run, process {pid}; logs/run-*.log has its output."


def _detach(command: Sequence[str]) -> int:
    """Start a program in a session of its own, so that nothing which ends us ends it."""
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    return os.posix_spawn(command[0], command, os.environ, file_actions=nowhere, setsid=True)
