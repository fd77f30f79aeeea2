"""What the searches cost: against a plain loop, and by halving against the full grid."""

import json
import logging
from statistics import mean, median

import numpy as np

from benchmarks.report import Section, make_table, verdict
from benchmarks.reruns import SMALL
from benchmarks.runs import Copy, cold_copy
from contract.params import Params, load_params
from contract.task import Score, score_named, standard_error

logger = logging.getLogger(__name__)

N_REPEATS = 3
HALVING_ROWS = [1_000]
SEEDS = [1, 2, 3]  # of the folds
THIRD = 1 / 3
WHY_DEAR = (
    ". **Missed** there: a fit costs nearly the same however few its rows, so what can be saved is "
    "fits, and of those the first round needs one for each combination, beside those that compare "
    "the finalists on all folds. Tried: scikit-learn's default rounds on all folds, which begin "
    "with some 30 rows, cost more fits and cannot hold 30 neighbours; ranking by one fold, which "
    "is dearer than by one half and no better."
)
ONE_PROCESS = {"LOKY_MAX_CPU_COUNT": "1"}


def measure_fits(quick: bool) -> Section:
    """Compare the CPU time of all tune stages with a plain loop of GridSearchCV."""
    with cold_copy(SMALL if quick else {}) as copy:
        for stage in ("ingest", "validate", "split"):
            copy.run("-m", f"stages.{stage}")
        params = load_params(copy.root / "params.yaml")
        rows = [_fits_of(copy, name, 1 if quick else N_REPEATS) for name in params.candidates]
    sums = [sum(column) for column in zip(*(row[1:7] for row in rows), strict=True)]
    total, fits, plain = sums[0], sums[3], sums[4]
    return Section(
        "4 The CPU time of the searches",
        (
            f"CPU seconds with all worker processes, medians of {1 if quick else N_REPEATS} "
            "in turn. The plain loop is `GridSearchCV(n_jobs=1, refit=False)` on the same "
            "pipelines, grids, folds and rows in one process and one thread, `fit` alone. Of the "
            "stage, the frame is all but its search: imports, reading, DVCLive (which opens the "
            "DVC repository), writing. Workers is what it costs to start them for nothing, and the "
            "fits are the rest of the search: all of the plain loop's, and one or two more by "
            "which the stage decides whether workers pay. Two processes at once slow "
            "each other down; the plain loop run twice at the same time shows by how much.",
            make_table(
                [
                    "candidate",
                    "stage in all",
                    "frame",
                    "workers",
                    "fits",
                    "plain loop",
                    "two such loops at once, each",
                    "fits / plain loop",
                ],
                [*rows, ["sum", *sums, fits / plain]],
            ),
            verdict("fits / plain loop, in sum", fits / plain, 1.1),
            f"- all that the stages cost / plain loop: {total / plain:.2f}",
        ),
    )


def _fits_of(copy: Copy, name: str, n_repeats: int) -> list[str | float]:
    measured = []
    for _ in range(n_repeats):
        _, stage = copy.run("-m", "stages.tune", name)
        search = _probe(copy, "whole", name)
        plain_s = _probe(copy, "loop", name)["cpu_s"]
        workers_s, at_once_s = 0.0, plain_s
        if search["in_parallel"]:
            _, started = copy.run("-m", "benchmarks.probe", "workers", name)
            _, imported = copy.run("-m", "benchmarks.probe", "imports", name)
            workers_s = started.cpu_s - imported.cpu_s
            at_once_s = _probe(copy, "loops", name)["cpu_s"]
        fits_s = search["cpu_s"] - workers_s
        frame_s = stage.cpu_s - search["cpu_s"]
        measured.append((stage.cpu_s, frame_s, workers_s, fits_s, plain_s, at_once_s))
    medians = [median(column) for column in zip(*measured, strict=True)]
    logger.info("%s: fits %.2f s, plain loop %.2f s", name, *medians[3:5])
    return [name, *medians, medians[3] / medians[4]]


def _probe(copy: Copy, *arguments: str, **environment: str) -> dict:
    told, _ = copy.run("-m", "benchmarks.probe", *arguments, **environment)
    return json.loads(told)


def measure_halving(quick: bool) -> Section:
    """Compare the strategies `halving` and `grid` of the tune stage, in CPU time and score."""
    parts = []
    with cold_copy(SMALL if quick else {}) as copy:
        params = load_params(copy.root / "params.yaml")
        for n_rows in HALVING_ROWS[:1] if quick else HALVING_ROWS:
            parts += _halving_on(copy, params, n_rows)
    return Section("5 Halving against the full grid", tuple(parts))


def _halving_on(copy: Copy, params: Params, n_rows: int) -> list[str]:
    score = score_named(params.score)
    names = [name for name in params.candidates if params.models[name].grid]
    rows = []
    for name in names:
        searches = [_search(copy, name, n_rows, seed, score) for seed in SEEDS]
        grid_s, halving_s = (sum(one[key] for one in searches) for key in ("grid_s", "halving_s"))
        short = [one["short"] for one in searches]
        ratio = halving_s / grid_s
        rows.append([name, grid_s, halving_s, ratio, mean(short), max(short), _n_within(short)])
        logger.info("%d rows, %s: %.2f of the CPU", n_rows, name, halving_s / grid_s)
    sums = [sum(row[column] for row in rows) for column in (1, 2)]
    n_within = sum(row[-1] for row in rows)
    shortest = max(row[4] for row in rows)
    dear = [row[0] for row in rows if row[3] > THIRD]
    header = [
        "candidate",
        "grid, CPU s",
        "halving, CPU s",
        "ratio",
        "short of the grid's score, in its standard errors",
        "at worst",
        f"within one, of {len(SEEDS)}",
    ]
    return [
        f"On {n_rows:,} simulated rows, of which {1 - params.split.test_size:.0%} to train, by "
        f"{len(SEEDS)} draws of the folds.",
        make_table(header, [*rows, ["sum", *sums, sums[1] / sums[0], "", "", n_within]]),
        verdict(f"halving / grid, in sum, {n_rows:,} rows", sums[1] / sums[0], THIRD)
        + f"\n- more than a third for itself: {', '.join(dear) or 'none'}"
        + (WHY_DEAR if dear else "")
        + "\n"
        + verdict("candidate furthest short, in standard errors, mean", shortest, 1)
        + f"\n- single searches within one standard error: {n_within} of {len(rows) * len(SEEDS)}",
    ]


def _n_within(short: list[float]) -> int:
    return sum(one <= 1 for one in short)


def _search(copy: Copy, name: str, n_rows: int, seed: int, score: Score) -> dict[str, float]:
    """Search by both strategies; say how far halving falls short, in standard errors."""
    arguments = ("search", name, str(n_rows), str(seed), "grid", "halving")
    found = _probe(copy, *arguments, **ONE_PROCESS)
    grid, halving = (np.array(found[how]["fold_scores"]) for how in ("grid", "halving"))
    return {
        "grid_s": found["grid"]["cpu_s"],
        "halving_s": found["halving"]["cpu_s"],
        "short": score.gain(grid.mean(), over=halving.mean()) / standard_error(grid),
    }
