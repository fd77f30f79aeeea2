"""A real SMTP server that keeps what it is sent, with and without TLS and log-in."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.serve.servers import free_port

USER, PASSWORD = "monitor", "s3cret-mail"


@dataclass
class Mailbox:
    """What came, and how to reach the server."""

    port: int
    came: list[Message] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "SMTP_HOST": "localhost",
            "SMTP_PORT": str(self.port),
            "SMTP_TLS": "off",
            "MAIL_FROM": "Monitor <monitor@example.org>",
            "MAIL_TO": "me@example.org, you@example.org",
        }

    @property
    def texts(self) -> list[str]:
        return [each.get_payload(decode=True).decode().replace("\r\n", "\n") for each in self.came]

    @property
    def subjects(self) -> list[str]:
        return [str(each["Subject"]) for each in self.came]


class _Keep(MessageHandler):
    def __init__(self, mailbox: Mailbox):
        super().__init__()
        self._mailbox = mailbox

    def handle_message(self, message: Message) -> None:
        self._mailbox.came.append(message)


@contextmanager
def mailbox_open(port: int | None = None, **options: Any) -> Iterator[Mailbox]:
    """Run a server until the block ends."""
    mailbox = Mailbox(port or free_port())
    controller = Controller(_Keep(mailbox), "localhost", mailbox.port, **options)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


def with_login(tls: ssl.SSLContext) -> dict[str, Any]:
    """Options of a server that asks for TLS, then for a user and a password."""
    return {
        "tls_context": tls,
        "require_starttls": True,
        "auth_required": True,
        "authenticator": _check,
    }


def _check(_server: Any, _session: Any, _envelope: Any, _how: str, data: Any) -> AuthResult:
    is_right = data == LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_right, handled=False)


def make_certificate(path: Path) -> ssl.SSLContext:
    """Write a certificate of localhost, which SSL_CERT_FILE may name; give its server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    whole = path.with_suffix(".key")
    whole.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(whole)
    return context
