"""Small programs for `benchmarks.searches`, each run in a process of its own, in a copy's root.

`python -m benchmarks.probe PROGRAM CANDIDATE [ROWS SEED STRATEGY...]`; PROGRAMS are listed below.
"""

import json
import os
import subprocess
import sys
import time

import joblib
import numpy as np
import psutil
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from contract.params import Params, load_params
from contract.preprocessing import ESTIMATOR, make_candidate
from contract.rows import read_rows, to_arrays
from contract.task import make_folds, score_named
from ops.simulate import SEED, simulate
from stages import tune
from stages.split import split
from stages.start import end_with_dvc

N_AT_ONCE = 2


def candidate(params: Params, name: str) -> tuple[Pipeline, dict[str, list]]:
    """Give what `tune` searches: the pipeline and the grid."""
    model = params.models[name]
    pipeline = make_candidate(params.contract, params.preprocessing, model, name, params.seed)
    return pipeline, {f"{ESTIMATOR}__{key}": list(values) for key, values in model.grid.items()}


def imports(name: str) -> None:
    """Import all that `tune` needs for this candidate, and do nothing."""
    candidate(load_params(), name)


def workers(name: str) -> None:
    """Start the workers that a search in parallel uses, and give each nothing to do."""
    pipeline, _ = candidate(load_params(), name)
    n_jobs = joblib.cpu_count()
    with joblib.parallel_config(
        "loky", n_jobs=n_jobs, inner_max_num_threads=1, initializer=end_with_dvc
    ):
        joblib.Parallel()(joblib.delayed(clone)(pipeline) for _ in range(n_jobs))


def whole(name: str) -> dict[str, float | bool]:
    """Give the CPU seconds of `tune`'s own search, worker processes included."""
    params = load_params()
    pipeline, grid = candidate(params, name)
    X, y = to_arrays(read_rows(tune.TRAIN_ROWS), params.contract)
    began = _cpu_s()
    tune.search(pipeline, grid, X, y, params.tune, score_named(params.score), params.seed)
    in_parallel = bool(psutil.Process().children())
    if in_parallel:
        get_reusable_executor().shutdown()  # the time of a child counts once it has ended
    return {"cpu_s": _cpu_s() - began, "in_parallel": in_parallel}


def _cpu_s() -> float:
    return sum(os.times()[:4])


def loop(name: str) -> dict[str, float]:
    """Give the CPU seconds of scikit-learn's plain search, in one process and one thread."""
    params = load_params()
    pipeline, grid = candidate(params, name)
    X, y = to_arrays(read_rows(tune.TRAIN_ROWS), params.contract)
    folds = make_folds(params.tune.n_folds, params.seed)
    scoring = score_named(params.score).scoring
    began = time.process_time()
    with threadpool_limits(1):
        GridSearchCV(pipeline, grid, scoring=scoring, cv=folds, n_jobs=1, refit=False).fit(X, y)
    return {"cpu_s": time.process_time() - began}


def loops(name: str) -> dict[str, float]:
    """Give the same where several such processes run at once, a mean."""
    command = [sys.executable, "-m", "benchmarks.probe", "loop", name]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(N_AT_ONCE)]
    told = [json.loads(process.communicate()[0]) for process in running]
    return {"cpu_s": float(np.mean([one["cpu_s"] for one in told]))}


def search(name: str, n_rows: str, seed: str, *strategies: str) -> dict[str, dict]:
    """Give CPU seconds and fold scores of `tune`'s own search by each strategy.

    The seed draws the folds.

    LOKY_MAX_CPU_COUNT=1 keeps it in one process, whose time is then all there is.
    """
    params = load_params()
    pipeline, grid = candidate(params, name)
    train, _ = split(simulate(int(n_rows), SEED), params.split.test_size, params.seed)
    X, y = to_arrays(train, params.contract)
    score, found = score_named(params.score), {}
    for strategy in strategies:
        how = params.tune.model_copy(update={"strategy": strategy})
        began = time.process_time()
        _, fold_scores = tune.search(pipeline, grid, X, y, how, score, int(seed))
        cpu_s = time.process_time() - began
        found[strategy] = {"cpu_s": cpu_s, "fold_scores": fold_scores.tolist()}
    return found


PROGRAMS = {program.__name__: program for program in (imports, workers, whole, loop, loops, search)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(PROGRAMS[sys.argv[1]](*sys.argv[2:])))
