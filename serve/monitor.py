"""What /monitor shows: the last report of `python -m ops.monitor`, and the log at this moment."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pydantic import BaseModel, SerializeAsAny

from contract.artifact import Manifest, load_train_profile
from contract.errors import ContractError
from contract.monitoring import Report, read_report
from contract.predictions.file import LogError
from contract.profile import Profile
from serve.serving import Serving
from serve.settings import Settings

logger = logging.getLogger(__name__)

KEPT_S = 10.0  # however often anybody reloads, the log is read no more often by each worker
MAKE = "python -m ops.monitor"
NOTHING_YET = "No prediction has been logged yet."
Found = TypeVar("Found")


class Kept(Generic[Found]):
    """Something that takes a while to make, kept for some seconds.

    One thread makes it anew; those that come meanwhile get the old one.
    """

    def __init__(self, make: Callable[[], Found], for_s: float):
        self._make, self._for_s = make, for_s
        self._lock = threading.Lock()
        self._found: Found | None = None
        self._until_s = 0.0

    def get(self) -> Found:
        if time.monotonic() >= self._until_s and self._lock.acquire(blocking=self._found is None):
            try:
                if time.monotonic() >= self._until_s:
                    self._found = self._make()
                    self._until_s = time.monotonic() + self._for_s
            finally:
                self._lock.release()
        return self._found


class Shown(BaseModel, frozen=True):
    """Both halves of the page; of one that is missing, why in a sentence."""

    report: Report | None
    report_problem: str
    live: SerializeAsAny[BaseModel] | None  # a serve.live.Live
    live_problem: str
    has_database: bool  # to which the log is delivered, and those of other servers


class Monitor:
    """Reads the report and the log, no more often than every few seconds."""

    def __init__(self, settings: Settings, serving: Serving):
        self._settings, self._serving = settings, serving
        self._kept = Kept(self._look, KEPT_S)
        self._reference: tuple[str, Profile | None, str] | None = None  # of which version

    def look(self) -> Shown:
        return self._kept.get()

    def _look(self) -> Shown:
        report, report_problem = self._read_report()
        live, live_problem = self._read_log()
        return Shown(
            report=report,
            report_problem=report_problem,
            live=live,
            live_problem=live_problem,
            has_database=self._settings.database is not None,
        )

    def _read_report(self) -> tuple[Report | None, str]:
        try:
            report = read_report(self._settings.monitor_report)
        except ContractError as error:
            return None, str(error)
        return report, "" if report else f"There is no report yet. Make one: {MAKE}"

    def _read_log(self) -> tuple[BaseModel | None, str]:
        path = self._settings.log_path
        if path is None:
            return None, "PREDICTION_LOG is off: nothing is logged, so there is nothing to show."
        if not path.exists():
            return None, NOTHING_YET
        from serve.live import Known, look  # brings psycopg2 along, which few need

        profile, problem = self._profile()
        try:
            live = look(path, Known(self._serving.current.contract, profile))
        except LogError as error:
            logger.warning("the live view is not shown: %s", error)
            return None, str(error)
        if not live.stats.n_predictions and not live.stats.n_rejected:
            return None, NOTHING_YET
        return live.model_copy(update={"notes": [*filter(None, [problem]), *live.notes]}), ""

    def _profile(self) -> tuple[Profile | None, str]:
        """Give the rows that the model in service was trained on, and why not if not."""
        manifest = self._serving.current.model.manifest
        if self._reference is None or self._reference[0] != manifest.version:
            self._reference = manifest.version, *self._load_profile(manifest)
        return self._reference[1:]

    def _load_profile(self, manifest: Manifest) -> tuple[Profile | None, str]:
        try:
            found, profile = load_train_profile(self._settings.model_folder)
        except (ContractError, OSError) as error:
            return None, str(error)
        if found.version != manifest.version:
            return None, (
                f"The model folder holds version {found.version}, while {manifest.version} is in "
                "service: training rows are shown once both are the same."
            )
        return profile, ""
