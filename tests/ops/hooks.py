"""A real HTTP server in the place of a webhook's, and what alerts remember."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ops.alerts import AlertSettings
from tests.serve.servers import free_port

SECRET = "T0k3n"


class Hook:
    """A real HTTP server that keeps what is posted, and answers as it is told to."""

    def __init__(self, port: int, status: int = 200, slow_s: float = 0.0):
        self.posted: list[dict] = []
        self.status, self.slow_s = status, slow_s
        self.url = f"http://127.0.0.1:{port}/hooks/{SECRET}"
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(hook.slow_s)
                hook.posted.append(json.loads(body))
                self.send_response(hook.status, f"see {self.path}")
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    @property
    def texts(self) -> list[str]:
        return [each["text"] for each in self.posted]


@contextmanager
def hook_open(port: int | None = None, **options) -> Iterator[Hook]:
    """Run such a server until the block ends."""
    hook = Hook(port or free_port(), **options)
    thread = threading.Thread(target=hook.server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        thread.join()
        hook.server.server_close()


def causes(settings: AlertSettings) -> list[dict]:
    return json.loads(Path(f"{settings.monitor_report}.alerts.json").read_text())["causes"]
