"""How every stage starts and ends as a program."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from contract.errors import ContractError
from contract.settings import read_env

logger = logging.getLogger(__name__)

STAGE = "DVC_STAGE"  # the variable in which DVC tells a stage, and all it starts, its name
WATCH_EVERY_S = 0.1


class StageError(ValueError):
    """A stage cannot go on; the message is meant for the user."""


def start(main: Callable[[], None]) -> None:
    """Run a stage; what the user can mend is told in words, without a traceback.

    The exit code is 1 then, so that DVC records nothing and no later stage runs.
    """
    logging.basicConfig(format="%(message)s")
    for ours in ("__main__", "contract", "stages"):  # of libraries, only what they warn of
        logging.getLogger(ours).setLevel(logging.INFO)
    end_with_dvc()
    read_env()
    began = time.perf_counter()
    try:
        main()
    except (ContractError, StageError) as error:
        raise SystemExit(f"ERROR: {error}") from None
    except FileNotFoundError as error:
        raise SystemExit(f"ERROR: {error}. An earlier stage makes it: run `dvc repro`.") from None
    except OSError as error:  # such as a full disk
        raise SystemExit(f"ERROR: {error}. Mend that and run `dvc repro` again.") from None
    logger.info("own work took %.2f s", time.perf_counter() - began)


def end_with_dvc() -> None:
    """Let this process, a stage or a worker of one, end as soon as the DVC that runs it has ended.

    `dvc repro` killed by SIGKILL cannot stop its stage, nor a killed stage its workers, and they
    would go on writing into outputs that the next `dvc repro` makes anew.
    """
    stage = os.environ.get(STAGE)
    if stage is None:
        return  # started by hand
    starters = _starters(stage)
    if not starters:
        _end()
    threading.Thread(target=_end_after_any, args=[starters], daemon=True).start()


def _starters(stage: str) -> list[psutil.Process]:
    """Find the processes above this one up to DVC; none if DVC ended before this was asked.

    DVC is the first that was not told the stage's name, as its shell is, or the stage above a
    worker. In the place of one that has ended stands what adopts orphans, of another session.
    """
    starters = []
    with suppress(psutil.Error, ProcessLookupError):
        for ancestor in psutil.Process().parents():
            starters.append(ancestor)
            if ancestor.environ().get(STAGE) != stage:
                return starters if os.getsid(ancestor.pid) == os.getsid(0) else []
    return []


def _end_after_any(starters: list[psutil.Process]) -> None:
    with suppress(psutil.Error):
        # a process that has ended stays as a zombie until the one above it asks
        while all(starter.status() != psutil.STATUS_ZOMBIE for starter in starters):
            time.sleep(WATCH_EVERY_S)
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
