"""What `dvc repro` costs: with nothing to do, after a change, cold, and on many rows."""

import logging
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.report import Section, make_table, verdict
from benchmarks.runs import Copy, Repro, cold_copy
from contract.params import load_params

logger = logging.getLogger(__name__)

N_REPEATS = 5  # of commands that take a second
N_COLD = 3  # cold runs
SMALL = {
    "candidates": ["linear", "ridge", "decision_tree"],
    "models.ridge.grid": {"alpha": [0.1, 1.0]},
    "models.decision_tree.grid": {"max_depth": [3, 4]},
    "evaluate.n_resamples": 100,
    "evaluate.n_permutations": 2,
}
AFTER_TUNE = ("select", "evaluate", "approve", "export")
GROWTH_CANDIDATES = ["linear", "ridge", "decision_tree", "hist_gradient_boosting"]
GROWTH_MAX_ROWS = 20_000
GROWTH_ROWS = [1_000, 10_000, 100_000, 1_000_000]


def measure_noop(quick: bool) -> Section:
    """Compare `dvc repro` that has nothing to do with `dvc status`."""
    with cold_copy(SMALL if quick else {}) as copy:
        copy.repro()
        copy.dvc("status")
        times = [(copy.dvc("status"), copy.dvc("repro")) for _ in range(1 if quick else N_REPEATS)]
    status_s, repro_s = (median(column) for column in zip(*times, strict=True))
    return Section(
        "1 A run with nothing to do",
        (
            f"Medians of {len(times)} runs, one after the other in turn.",
            make_table(
                ["command", "seconds"], [["`dvc status`", status_s], ["`dvc repro`", repro_s]]
            ),
            verdict("`dvc repro` / `dvc status`", repro_s / status_s, 2),
        ),
    )


def measure_one_grid(quick: bool) -> Section:
    """Change one value of one candidate's grid, for each candidate in turn."""
    with cold_copy(SMALL if quick else {}) as copy:
        cold = copy.repro()
        params = load_params(copy.root / "params.yaml")
        names = [name for name in params.candidates if params.models[name].grid]
        rows, shares = [], {}
        for name in names[-1:] if quick else names:
            copy.set_params({f"models.{name}.grid": with_neighbour(params.models[name].grid)})
            again = copy.repro()
            _expect_only(name, again)
            skipped = [stage for stage in AFTER_TUNE if stage not in again.stages]
            spared_s = sum(cold.stages[stage].wall_s for stage in skipped)
            shares[name] = (again.wall_s + spared_s) / cold.wall_s
            ran = ", ".join(again.stages)
            rows.append([name, ran, again.wall_s, again.wall_s / cold.wall_s, shares[name]])
            logger.info("%s: %s", name, ran)
    header = [
        "changed grid",
        "stages that ran",
        "seconds",
        "share of cold",
        "with all that follows",
    ]
    return Section(
        "2 One candidate's grid is changed",
        (
            f"One value of the grid is replaced by a near one; a cold run took "
            f"{cold.wall_s:.1f} s. Where the winner stays the same, `evaluate` and "
            "what follows are spared; the last column adds their time in the cold run.",
            make_table(header, sorted(rows, key=lambda row: row[-1])),
            "- Of `tune`, the changed candidate alone ran again: reached\n"
            + verdict("median candidate, with all that follows", median(shares.values()), 1 / 3),
        ),
    )


def with_neighbour(grid: dict[str, tuple]) -> dict[str, list]:
    """Replace the last number of the first hyperparameter that has one by a near number."""
    changed = {key: list(values) for key, values in grid.items()}
    for values in changed.values():
        for place in reversed(range(len(values))):
            if type(values[place]) in (int, float):
                step = 1 if type(values[place]) is int else values[place] / 100
                values[place] += step
                return changed
    raise ValueError(f"{grid} holds no number, expected one to change")


def _expect_only(name: str, again: Repro) -> None:
    ran = set(again.stages)
    if not {f"tune@{name}", "select"} <= ran <= {f"tune@{name}", *AFTER_TUNE}:
        raise RuntimeError(f"after a change of {name}'s grid these stages ran: {ran}")


def measure_cold(quick: bool) -> Section:
    """Take a cold run apart: the stages' own work, their start-up, and DVC."""
    runs = [_cold_run(SMALL if quick else {}) for _ in range(1 if quick else N_COLD)]
    run = sorted(runs, key=lambda run: run.wall_s)[len(runs) // 2]
    rows = [
        [name, run.own_s[name], cost.wall_s - run.own_s[name], cost.cpu_s, round(cost.peak_mb)]
        for name, cost in run.stages.items()
    ]
    own_s = sum(run.own_s.values())
    stages_s = sum(cost.wall_s for cost in run.stages.values())
    sums = [own_s, stages_s - own_s, sum(cost.cpu_s for cost in run.stages.values()), ""]
    return Section(
        "3 A cold run, stage by stage",
        (
            f"Cold runs: {len(runs)}; the median took {run.wall_s:.1f} s, of which DVC itself "
            f"{run.wall_s - stages_s:.1f} s. Start-up is Python and the imports.",
            make_table(
                ["stage", "own work, s", "start-up, s", "CPU, s", "peak memory, MB"],
                [*rows, ["sum", *sums]],
            ),
            verdict("own work / wall time of `dvc repro`", own_s / run.wall_s, 0.5, at_least=True),
        ),
    )


def _cold_run(changes: dict[str, Any]) -> Repro:
    with cold_copy(changes) as copy:
        run = copy.repro()
    logger.info("cold run: %.1f s", run.wall_s)
    return run


def measure_growth(quick: bool) -> Section:
    """Run cold on more and more rows."""
    sizes = [1_000, 2_000] if quick else GROWTH_ROWS
    changes = SMALL if quick else {"candidates": GROWTH_CANDIDATES}
    with cold_copy(changes | {"tune.max_rows": GROWTH_MAX_ROWS}) as copy:
        runs = {n_rows: _run_on(copy, n_rows) for n_rows in sizes}
    names = list(runs[sizes[0]].stages)
    header = ["stage", *(f"{n_rows:,}" for n_rows in sizes)]
    walls = [[name, *(runs[n].stages[name].wall_s for n in sizes)] for name in names]
    peaks = [[name, *(runs[n].stages[name].peak_mb for n in sizes)] for name in names]
    steepest, name = max(
        (after / before, row[0]) for row in peaks for before, after in pairwise(row[1:])
    )
    ratio = max(after / before for before, after in pairwise(sizes))
    return Section(
        "6 Growth with the rows",
        (
            f"Candidates: {', '.join(changes['candidates'])}; `tune.max_rows` {GROWTH_MAX_ROWS:,}, "
            "so the search looks at that many rows at the most and the winner is fitted on all.",
            "Seconds of each stage, start-up included:",
            make_table(header, [*walls, ["`dvc repro`", *(runs[n].wall_s for n in sizes)]]),
            "Peak memory of each stage, MB:",
            make_table(header, [[row[0], *map(round, row[1:])] for row in peaks]),
            verdict(
                f"steepest growth of memory from one size to the next, {name}", steepest, ratio
            ),
        ),
    )


def _run_on(copy: Copy, n_rows: int) -> Repro:
    source = "data/growth.csv"
    copy.run("-m", "ops.simulate", "--rows", str(n_rows), "--output", source)
    copy.set_params({"data.source": source})
    run = copy.repro()
    logger.info("%d rows: %.1f s", n_rows, run.wall_s)
    return run
