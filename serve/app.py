"""Put the server together: settings, model, log, routes and what every request passes."""

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from contract.errors import ContractError
from contract.predictions.damage import files_aside
from contract.predictions.log import PredictionLog
from contract.predictions.privacy import Privacy
from contract.settings import read_settings
from serve.errors import ServeError, answer_errors
from serve.limits import LimitBody, turn_away
from serve.metrics import Metrics
from serve.monitor import Monitor
from serve.observe import Observed
from serve.pages import prepare_pages
from serve.routes import routes
from serve.safety import Guard, SafeHeaders, public
from serve.serving import Serving
from serve.settings import Settings

if TYPE_CHECKING:
    from contract.predictions.outbox import Lag
    from serve.keeper import Keeper

OPEN_S = 1.0  # for the log to be opened before the first request


@dataclass(frozen=True)
class Parts:
    """What the routes work with."""

    settings: Settings
    serving: Serving
    log: PredictionLog | None  # None: PREDICTION_LOG=off
    monitor: Monitor
    metrics: Metrics = field(default_factory=Metrics)
    keeper: "Keeper | None" = None  # of the process that delivers the log, if there is a database

    def start(self) -> None:
        """Begin what needs threads; called in each worker, after the fork."""
        if self.log is not None:
            self._open_log()
        self.serving.follow(self.settings.model_poll_s)
        if self.keeper is not None:
            self.keeper.start()

    def _open_log(self) -> None:
        """Open it before anybody asks, and before other threads want the interpreter's lock.

        Between two statements of a transaction such a thread had its turn of 5 ms, while all other
        workers waited for the file. A disk that hangs does not keep the worker from its start.
        """
        opening = threading.Thread(target=self.log.is_writable, name="log", daemon=True)
        opening.start()
        opening.join(OPEN_S)

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
        if self.keeper is not None:
            self.keeper.close()

    def n_aside(self) -> int:
        """Give how many files of the log were set aside as damaged, and not recovered since."""
        return len(files_aside(self.log.path)) if self.log is not None else 0

    def lag(self) -> "Lag | None":
        """Give how far the database is behind the log; None if there is no database."""
        if self.settings.database is None:
            return None
        from contract.predictions.outbox import lag_of  # see _make_keeper

        lag, _ = lag_of(self.settings.log_path, self.settings.database.name)
        return lag


def create_app(settings: Settings | None = None) -> Flask:
    """Load the model and make the app; raises ArtifactError if there is no whole model.

    Starts no thread and opens no log, so that gunicorn may fork afterwards; each worker then calls
    `app.extensions["serve"].start()`.
    """
    settings = settings or read_settings(Settings)
    metrics = Metrics()
    log = settings.log_path and PredictionLog(
        settings.log_path, sync_full=settings.prediction_log_sync == "full"
    )
    app = Flask(__name__)
    key = settings.prediction_log_key.get_secret_value()
    privacy_of = partial(Privacy, settings.prediction_log_features, key)
    serving = Serving(settings.model_folder, metrics, privacy_of)
    monitor = Monitor(settings, serving)
    parts = Parts(settings, serving, log, monitor, metrics, _make_keeper(settings))
    app.extensions["serve"] = parts
    app.json.sort_keys = False
    app.config["TRUSTED_HOSTS"] = list(settings.trusted_hosts) or None
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_json_bytes
    app.config["MAX_FORM_PARTS"] = settings.max_columns
    prepare_pages(app)
    answer_errors(app)
    app.register_blueprint(routes)
    public(app.view_functions["static"])
    guard = Guard(app, settings)

    @app.before_request
    def receive() -> None:
        turn_away()
        guard()

    limited = LimitBody(app.wsgi_app, settings.max_upload_bytes)
    app.wsgi_app = SafeHeaders(Observed(limited, metrics))
    if settings.trusted_proxies:
        n = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=n, x_proto=n, x_host=n)
    return app


def _make_keeper(settings: Settings) -> "Keeper | None":
    if settings.database is None:
        return None
    from serve.keeper import Keeper  # brings psycopg2 along, which few need

    return Keeper(settings)


def wsgi() -> Flask:
    """Make the app for gunicorn; what stands in the way is told in one sentence, no traceback."""
    try:
        return create_app()
    except (ContractError, ServeError) as error:
        raise SystemExit(f"The server cannot start: {error}") from error
