"""TLS in front of a PostgreSQL that has none: authorities, certificates, and a real peer."""

import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

# With which a client of PostgreSQL asks for TLS. Source: PostgreSQL's documentation, "Message
# Formats", SSLRequest: the length, then 1234 and 5679 in 16 bits each.
SSL_REQUEST = struct.pack("!IHH", 8, 1234, 5679)
DAY = timedelta(days=1)
PATIENCE_S = 10.0


class Authority:
    """Signs certificates; its own is in a file, which sslrootcert may name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(path.stem)
        own = self._builder(self._name, self._key, datetime.now(UTC) + DAY)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        path.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def sign(self, host: str, days: float = 1) -> ssl.SSLContext:
        """Give a server's context with a certificate for a host, which ends in so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        end = datetime.now(UTC) + timedelta(days=days)
        builder = self._builder(_name(host), key, end).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
        )
        whole = self.path.with_name(f"{self.path.stem}-{host}.pem")
        whole.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(whole)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - 10 * DAY)
            .not_valid_after(end)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Front:
    """Where TLS is spoken, and what was agreed on with those who came through."""

    port: int
    versions: list[str] = field(default_factory=list)


@contextmanager
def tls_in_front(port: int, context: ssl.SSLContext) -> Iterator[Front]:
    """Speak TLS on a port of its own, and pass on to a server without it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        front = Front(listener.getsockname()[1])
        stop = threading.Event()
        arguments = (listener, port, context, front, stop)
        thread = threading.Thread(target=_accept, args=arguments)
        thread.start()
        try:
            yield front
        finally:
            stop.set()
            thread.join()


def _accept(
    listener: socket.socket,
    port: int,
    context: ssl.SSLContext,
    front: Front,
    stop: threading.Event,
) -> None:
    threads = []
    while not stop.is_set():
        if select.select([listener], [], [], 0.02)[0]:
            client, _ = listener.accept()
            arguments = (client, port, context, front, stop)
            threads.append(threading.Thread(target=_serve, args=arguments))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _serve(
    plain: socket.socket, port: int, context: ssl.SSLContext, front: Front, stop: threading.Event
) -> None:
    plain.settimeout(PATIENCE_S)
    with plain, suppress(OSError):  # such as of a client that does not trust the certificate
        if plain.recv(len(SSL_REQUEST), socket.MSG_WAITALL) != SSL_REQUEST:
            return
        plain.sendall(b"S")
        with (
            context.wrap_socket(plain, server_side=True) as client,
            socket.create_connection(("127.0.0.1", port), PATIENCE_S) as server,
        ):
            front.versions.append(client.version())
            _pass_on(client, server, stop)


def _pass_on(client: ssl.SSLSocket, server: socket.socket, stop: threading.Event) -> None:
    """Pass bytes on both ways, in one thread: OpenSSL does not let two use one connection."""
    while not stop.is_set():
        ready = select.select([client, server], [], [], 0.02)[0]
        for source, sink in ((client, server), (server, client)):
            if source in ready or (source is client and client.pending()):
                if not (data := source.recv(65_536)):
                    return
                sink.sendall(data)
