"""Optional tracking in MLflow: off unless MLFLOW_TRACKING_URI is set.

Nothing of it reaches an output, and trouble with the server is one warning, never a failed stage.
"""

import logging
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import version
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from contract.figures import read_figures, rounded
from contract.params import Component, Params
from contract.task import standard_error
from stages.libraries import libraries_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

TUNED = Path("metrics/tune")  # a folder for each candidate
SELECTION = Path("metrics/select.json")
PARAMS = Path("params.yaml")
MODEL = "model"  # the model's folder among a run's files
CONTACT_WITHIN_S = 8  # the look-up of a name has no time limit of its own
DEFAULTS = {  # of MLflow's own variables, where the user sets nothing else
    "MLFLOW_EXPERIMENT_NAME": "pipeline",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; a silent server may not hold up a stage
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it may hold the password
}
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
MAX_LENGTH = 500  # of a param's value, on servers before MLflow 2.8, such as DagsHub's
STEPS = ("numeric", "nominal", "ordinal", "joint")  # of preprocessing, by kind
REFUSALS = (401, 403)  # of HTTP

Measured = dict[str, float | list[float]]  # by name; a list holds one value a step


@dataclass(frozen=True)
class Experiment:
    """An experiment on the user's server, with the runs that were logged in it."""

    client: "MlflowClient"
    name: str
    id: str

    def log_run(
        self, name: str, settings: dict[str, Any], measured: Measured, model: BaseEstimator
    ) -> str:
        """Log a candidate's run with its fitted model; give the run's id.

        Its tags name the commit, and the result, by which `evaluate` finds it again.
        """
        from mlflow.entities import Param
        from mlflow.tracking.context.registry import resolve_tags

        tags = resolve_tags({"candidate": name, "scored": _in_one_line(measured)})
        run_id = self.client.create_run(self.id, tags=tags, run_name=name).info.run_id
        status = "FAILED"
        try:
            params = [Param(key, str(value)[:MAX_LENGTH]) for key, value in settings.items()]
            self.client.log_batch(run_id, _to_metrics(measured), params)
            self.client.log_artifact(run_id, str(PARAMS))
            self._log_model(run_id, model)
            status = "FINISHED"
        finally:
            self.client.set_terminated(run_id, status)
        logger.info("tracked in MLflow: experiment %s, run %s (%s)", self.name, run_id, name)
        return run_id

    def _log_model(self, run_id: str, model: BaseEstimator) -> None:
        """Store the model among the run's files: servers before MLflow 3 know no other place."""
        import mlflow.sklearn
        import skops.io
        from mlflow.models import infer_signature

        needed = libraries_of(model) | {name: version(name) for name in ("numpy", "skops")}
        X = np.zeros((1, model.n_features_in_))  # what `encode` gives for a row of zeros
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MODEL
            mlflow.sklearn.save_model(
                model,
                path,
                # it was made here; whoever loads it sees the list in the file MLmodel
                skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(model)),
                pip_requirements=[f"{lib}=={known}" for lib, known in needed.items()],
                signature=infer_signature(X, model.predict(X)),
            )
            self.client.log_artifacts(run_id, str(path), MODEL)

    def find_run(self, name: str, measured: Measured) -> str | None:
        """Find a candidate's newest run with this result; None if it was not tracked."""
        found = self.client.search_runs(
            [self.id],
            f"tags.candidate = '{name}' and tags.scored = '{_in_one_line(measured)}' "
            "and attributes.status = 'FINISHED'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return found[0].info.run_id if found else None

    def crown(self, run_id: str, measured: Measured) -> None:
        """Make a run the experiment's only winner."""
        from mlflow.entities import RunTag

        for former in self.client.search_runs([self.id], "tags.winner = 'true'"):
            self.client.delete_tag(former.info.run_id, "winner")
        self.client.log_batch(run_id, _to_metrics(measured), tags=[RunTag("winner", "true")])


def find_experiment() -> Experiment:
    """Find the experiment on the server, or create it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client, name = MlflowClient(), os.environ["MLFLOW_EXPERIMENT_NAME"]
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return Experiment(client, name, client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another stage was quicker
    return Experiment(client, name, found.experiment_id)


def _optional(track: Callable[..., None]) -> Callable[..., None]:
    """Give the function the experiment if tracking is on, and turn a failure into a warning."""

    @wraps(track)
    def tracked(*args: Any) -> None:
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if not server:
            return
        for setting, value in DEFAULTS.items():
            os.environ.setdefault(setting, value)
        try:
            from mlflow.exceptions import MlflowException  # here, as it takes seconds
            from skops.io.exceptions import UnsupportedTypeException
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            logger.warning(
                "MLFLOW_TRACKING_URI is set, but nothing is tracked: %s. "
                "Install it with: uv pip install --requirement requirements-mlflow.txt",
                error,
            )
            return
        known = (MlflowException, SQLAlchemyError, UnsupportedTypeException, ImportError, OSError)
        try:
            track(_contact(server), *args)
        except known as error:
            logger.warning("not tracked in MLflow at %s: %s", _harmless(server), _reason(error))

    return tracked


@_optional
def track_candidate(
    experiment: Experiment,
    name: str,
    params: Params,
    pipeline: BaseEstimator,
    X: np.ndarray,
    y: np.ndarray,
) -> None:
    """Log what `tune` has written of a candidate, and its model, fitted on the rows searched."""
    best = read_figures(TUNED / name / "best.json")
    folds = np.array(best["fold_scores"])
    measured = {
        best["score"]: rounded(float(folds.mean())),
        "standard_error": rounded(standard_error(folds)),
        f"fold_{best['score']}": folds.tolist(),
    }
    with threadpool_limits(1):
        pipeline.fit(X, y)
    experiment.log_run(name, _settings(name, params, best), measured, pipeline)


@_optional
def track_winner(experiment: Experiment, evaluation: dict[str, Any], chosen: BaseEstimator) -> None:
    """Tag the winner's run, and log its scores on the test rows.

    Makes the run if there is none: an ensemble is not tuned, other candidates perhaps untracked.
    """
    name, score, selection = evaluation["candidate"], evaluation["score"], read_figures(SELECTION)
    measured = {key: selection[key] for key in (score, "standard_error")}
    tested = {key: value for key, value in evaluation.items() if type(value) is float}
    tested["interval_coverage"] = evaluation["interval"]["coverage"]

    run_id = experiment.find_run(name, measured)
    run_id = run_id or experiment.log_run(name, {"score": score}, measured, chosen)
    experiment.crown(run_id, {f"test_{key}": value for key, value in rounded(tested).items()})


def _in_one_line(measured: Measured) -> str:
    """Tell a result in a tag: whatever was changed without a change of it, changed no winner."""
    figures = {name: value for name, value in measured.items() if not isinstance(value, list)}
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def _settings(name: str, params: Params, best: dict[str, Any]) -> dict[str, Any]:
    """Name what a run rests on: hyperparameters as such, the rest by its place in params.yaml."""
    model = params.models[name]
    steps = model.preprocessing.applied_to(params.preprocessing)
    return {
        "seed": params.seed,
        "score": best["score"],
        "class": model.class_,
        **{f"tune.{key}": value for key, value in params.tune.model_dump().items()},
        **{f"preprocessing.{kind}": _in_words(getattr(steps, kind)) for kind in STEPS},
        **{f"preprocessing.{feature}": _in_words(own) for feature, own in steps.features.items()},
        **{key: best[key] for key in ("n_combinations", "n_rows")},
        **model.args,
        **best["hyperparameters"],
    }


def _in_words(steps: tuple[Component, ...]) -> str:
    """Name the steps of one kind, such as 'SimpleImputer {'strategy': 'mean'}, StandardScaler'."""
    named = ((step.class_.rpartition(".")[2], step.args or "") for step in steps)
    return ", ".join(f"{name} {args}".strip() for name, args in named) or "none"


def _to_metrics(measured: Measured) -> list:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [
        Metric(name, value, now_ms, step)
        for name, values in measured.items()
        for step, value in enumerate(values if isinstance(values, list) else [values])
        if value is not None  # a figure that is not finite
    ]


def _contact(server: str) -> Experiment:
    """Find the experiment in time, or raise TimeoutError and leave the search in its thread."""
    if not server.startswith("http"):  # a database, which takes its time to be made
        return find_experiment()
    with ThreadPool(1) as pool:
        try:
            return pool.apply_async(find_experiment).get(CONTACT_WITHIN_S)
        except multiprocessing.TimeoutError:
            raise TimeoutError(f"no answer in {CONTACT_WITHIN_S} s") from None


def _reason(error: BaseException) -> str:
    """Put a failure in one sentence: that of the network error which the others only wrap."""
    from mlflow.exceptions import InvalidUrlException, MlflowException

    if isinstance(error, InvalidUrlException):
        return "the address is not valid"  # its message may hold half a password
    if isinstance(error, MlflowException) and error.get_http_status_code() in REFUSALS:
        return "user or password are refused, see MLFLOW_TRACKING_USERNAME in .env.example"
    innermost, reason = error, str(error)
    while innermost is not None:
        if isinstance(innermost, OSError):
            reason = str(innermost)
        innermost = innermost.__cause__ or innermost.__context__
    return _harmless(reason.partition("\n")[0].partition(". ")[0])


def _harmless(text: str) -> str:
    """Take the passwords out of a text, also those inside an address."""
    for name in SECRETS:
        text = text.replace(os.environ.get(name) or "\0", "***")
    return re.sub(r"//\S*@", "//", text)
