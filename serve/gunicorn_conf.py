"""How gunicorn runs the app: `gunicorn --config python:serve.gunicorn_conf`.

gunicorn reads the names below; what differs between places of service comes from the environment.
"""

import atexit
import gc
import logging
import os
import shutil
import socket
import tempfile

from flask import Flask
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from werkzeug.test import create_environ, run_wsgi_app

from contract.settings import read_settings
from serve.errors import ServeError
from serve.logs import GatheredLines, JsonLines, log_to_stderr
from serve.settings import Place, Settings
from serve.shares import AWAY, Shares
from serve.spare import in_spare_time
from serve.worker import Worker

logger = logging.getLogger(__name__)


def expect_free(host: str, port: int) -> None:
    """Raise ServeError if nobody can listen there; gunicorn would try for five seconds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"Cannot listen on {host}, port {port}: {error.strerror}. Set HOST and PORT."
            ) from error


def make_app() -> Flask:
    """Make the app before gunicorn forks; what stands in the way ends it with one sentence."""
    if "GUNICORN_FD" not in os.environ:  # else a running gunicorn hands its sockets to this one
        try:
            expect_free(place.host, place.port)
        except ServeError as error:
            raise SystemExit(str(error)) from error
    count_across_workers()
    log_to_stderr(settings.log_level)
    from serve.app import wsgi  # not before prometheus_client can see where to count

    return wsgi()


def count_across_workers() -> None:
    """Give prometheus_client a folder for the counts of all workers while this process lives."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        return
    folder, master = tempfile.mkdtemp(prefix="serve-metrics-"), os.getpid()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    atexit.register(lambda: os.getpid() == master and shutil.rmtree(folder, ignore_errors=True))


class JsonLog(Logger):
    """gunicorn's own messages, as the app's: one JSON object a line."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonLines())


settings, place = read_settings(Settings), read_settings(Place)

# from here on gunicorn's settings
wsgi_app = "serve.gunicorn_conf:make_app()"
bind = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
workers = place.workers
threads = place.threads
worker_class = "serve.worker.Worker"
worker_connections = 512  # in each worker; with uploads and logs below 1024 open files
preload_app = True  # the workers share the model's memory
keepalive = place.keep_alive_s
graceful_timeout = place.graceful_s
timeout = 60  # the main loop never takes long; a machine that hangs may
logger_class = JsonLog
loglevel = settings.log_level.lower()
control_socket_disable = True
# Headers that a proxy may set are for TRUSTED_PROXIES to say; gunicorn would take SCRIPT_NAME, from
# any program on this machine, for a part of the path.
forwarded_allow_ips = ""
forwarder_headers = ""


def post_fork(_: Arbiter, worker: Worker) -> None:
    worker.n_queued = place.queue
    worker.max_body_bytes = settings.max_upload_bytes
    worker.patience_s = place.patience_s
    worker.answers_itself = settings.prediction_log_sync != "full"


def when_ready(_: Arbiter) -> None:
    Worker.shares = Shares()
    gc.collect()
    gc.freeze()  # what is loaded stays: nobody looks through it again, and it stays shared


def post_worker_init(worker: Worker) -> None:
    for handler in logging.root.handlers:
        if isinstance(handler, GatheredLines):
            handler.gather()
    parts = worker.app.wsgi().extensions.get("serve")
    if parts is not None:
        if parts.log is not None:
            worker.round.write, parts.log.hand_over = parts.log.write, worker.round.take
        warm_up(worker)
        parts.start()


def warm_up(worker: Worker) -> None:
    """Predict, and let a request pass, before anybody asks; without that, who asks first waits.

    The first of each touch memory that was shared until then. That and a look through the log took
    some 30 ms of a processor, for which all others waited where one was killed.
    """
    app = worker.app.wsgi()
    parts = app.extensions["serve"]

    def touch_all() -> None:
        parts.serving.prove()
        if parts.log is not None:
            parts.log.look_ahead()
        host = next(iter(settings.trusted_hosts), "localhost").removeprefix(".")
        told = {"X-Request-ID": "warm-up"}  # in the access log
        run_wsgi_app(app, create_environ("/health", f"http://{host}", headers=told))

    try:
        if worker.shares.fewest() < AWAY:
            in_spare_time(touch_all)
        else:  # nobody else answers
            touch_all()
    except Exception:
        logger.warning("a worker could not warm up", exc_info=True)


def worker_exit(_: Arbiter, worker: Worker) -> None:
    parts = worker.app.wsgi().extensions.get("serve")
    if parts is not None:
        parts.close()


def child_exit(_: Arbiter, worker: Worker) -> None:
    worker.shares.leave(worker.age)
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead  # see make_app

        mark_process_dead(worker.pid)
