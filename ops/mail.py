"""Send e-mail as the environment says; .env.example has the variables."""

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, getaddresses, make_msgid
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

PORTS = {"starttls": 587, "ssl": 465, "off": 25}
PATIENCE_S = 20.0  # for each answer of the server
HIDDEN = "***"


class MailError(ValueError):
    """An e-mail could not be sent; the message is meant for the user, and holds no secret."""


class MailSettings(BaseModel, frozen=True):
    """How e-mail leaves; none does while SMTP_HOST is not set."""

    smtp_host: str = ""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] | None = None  # None: the usual one
    smtp_user: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_tls: Literal["starttls", "ssl", "off"] = "starttls"
    mail_from: str = ""
    mail_to: str = ""  # addresses, parted by commas

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if bool(self.smtp_host) != bool(self.mail_to):
            missing = "MAIL_TO" if self.smtp_host else "SMTP_HOST"
            raise _wrong(f"{missing} is missing, expected with the other, to send e-mail")
        if not self.smtp_host:
            return self
        for name, addresses in (("MAIL_FROM", [self.sender]), ("MAIL_TO", self.recipients)):
            if not addresses or not all(map(_is_address, addresses)):
                told = getattr(self, name.lower())
                raise _wrong(f"{name} is {told!r}, expected an address such as me@example.org")
        if bool(self.smtp_user) != bool(self.password):
            raise _wrong("SMTP_USER and SMTP_PASSWORD are expected together")
        if self.password and self.smtp_tls == "off":
            raise _wrong("SMTP_TLS is off, so that SMTP_PASSWORD would be sent for all to read")
        return self

    @property
    def sends_mail(self) -> bool:
        return bool(self.smtp_host)

    @property
    def password(self) -> str:
        return self.smtp_password.get_secret_value()

    @property
    def sender(self) -> str:
        return self.mail_from or self.smtp_user

    @property
    def recipients(self) -> list[str]:
        return [address for _, address in getaddresses([self.mail_to])]

    @property
    def server(self) -> tuple[str, int]:
        return self.smtp_host, self.smtp_port or PORTS[self.smtp_tls]


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("mail", message)


def _is_address(text: str) -> bool:
    _, address = next(iter(getaddresses([text])), ("", ""))
    name, _, host = address.rpartition("@")
    return bool(name and host) and text.isprintable()


def send_mail(settings: MailSettings, subject: str, text: str) -> None:
    """Send plain text to all recipients; raises MailError if the server takes it for none."""
    message = _make_message(settings, subject, text)
    host, port = settings.server
    try:
        with _connect(settings) as server:
            if settings.smtp_user:
                server.login(settings.smtp_user, settings.password)
            server.send_message(message)
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        reason = hide(_in_words(error), [settings.password])
        raise MailError(f"{host}, port {port}: {reason}. {_advice(error)}") from None


def _make_message(settings: MailSettings, subject: str, text: str) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "".join(each if each.isprintable() else " " for each in subject)
    message["From"], message["To"] = settings.sender, settings.mail_to
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2].rstrip(">"))
    message["Auto-Submitted"] = "auto-generated"  # so that nobody's absence note answers
    message.set_content(text)
    return message


def _connect(settings: MailSettings) -> smtplib.SMTP:
    host, port = settings.server
    if settings.smtp_tls == "ssl":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, port, timeout=PATIENCE_S, context=context)
    server = smtplib.SMTP(host, port, timeout=PATIENCE_S)
    if settings.smtp_tls == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


def hide(text: str, secrets: list[str]) -> str:
    """Blot out secrets, for servers like to repeat what they were sent."""
    for secret in filter(None, secrets):
        text = text.replace(secret, HIDDEN)
    return text


def _in_words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        answers = [f"{to}: {_answer(*answer)}" for to, answer in error.recipients.items()]
        return "; ".join(answers)
    if isinstance(error, smtplib.SMTPResponseException):
        return _answer(error.smtp_code, error.smtp_error)
    if isinstance(error, UnicodeError):  # whose own words show a letter of it
        return "a value is not ASCII"
    if isinstance(error, TimeoutError):
        return f"no answer for {PATIENCE_S:g} s"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def _answer(code: int, text: bytes | str) -> str:
    told = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(told.split())}".rstrip(".")


def _advice(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return "Correct SMTP_USER and SMTP_PASSWORD."
    if isinstance(error, smtplib.SMTPNotSupportedError | ssl.SSLError):
        return "Correct SMTP_TLS, or have the server's certificate mended."
    if isinstance(error, smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused):
        return "Correct MAIL_FROM and MAIL_TO, or ask who runs the server."
    if isinstance(error, UnicodeError):
        return "Correct SMTP_HOST, SMTP_USER and SMTP_PASSWORD."
    return "Correct SMTP_HOST, SMTP_PORT and SMTP_TLS, or look after the server."
