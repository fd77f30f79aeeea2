"""The error where the truth is known, with its confidence, against what evaluation promised."""

import numpy as np

from contract.artifact import Manifest
from contract.monitoring import LiveError
from contract.task import REPORTED, Score, score_named

FEWEST = 30  # rows, below which an interval says nothing
N_RESAMPLES = 1000
N_AT_ONCE = 50
MOST_ROWS = 20_000  # that are resampled; more narrow the interval no further than it matters
SEED = 0


def live_error(truths: np.ndarray, manifest: Manifest, main: str) -> LiveError | None:
    """Measure truths and predictions, shape (n_rows, 2); None if there are too few.

    `main` is how params.yaml names the score. The interval holds the score with 95 % confidence:
    the percentiles of a bootstrap, Efron, "Bootstrap Methods" (1979).
    """
    rows = truths[np.isfinite(truths).all(axis=1)][-MOST_ROWS:]
    score = _score_of(manifest, main)
    if score is None or len(rows) < FEWEST:
        return None
    value = score.of(rows[:, 0], rows[:, 1])
    low, high = np.percentile(_resampled(rows, score), [2.5, 97.5])
    promised, confidence = manifest.metrics[score.name], manifest.confidence
    # the promise was measured on few rows, too, so its own interval has to be left behind
    ends = (confidence.lower, confidence.upper) if confidence else (promised, promised)
    return LiveError(
        score=score.name,
        n_rows=len(rows),
        value=round(value, 6),
        low=round(float(low), 6),
        high=round(float(high), 6),
        promised=promised,
        promised_low=confidence.lower if confidence else None,
        promised_high=confidence.upper if confidence else None,
        is_worse=bool(high < ends[0] if score.higher_is_better else low > ends[1]),
    )


def _score_of(manifest: Manifest, main: str) -> Score | None:
    """Find the score by which the model was judged; None if this params.yaml does not know it."""
    scores = [score_named(name) for name in (main, *REPORTED)]
    return next((score for score in scores if score.name == manifest.score), None)


def _resampled(rows: np.ndarray, score: Score) -> np.ndarray:
    random, found = np.random.default_rng(SEED), []
    for _ in range(N_RESAMPLES // N_AT_ONCE):
        drawn = rows[random.integers(len(rows), size=(len(rows), N_AT_ONCE))]
        found.append(score.of_each(drawn[..., 0], drawn[..., 1]))
    return np.concatenate(found)
