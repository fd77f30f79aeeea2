"""Judge the evaluated model by the gate; a refusal stops the run before anything is exported."""

import logging
from pathlib import Path
from typing import Any

from contract.figures import read_figures, rounded, write_figures
from contract.params import Gate, load_params
from stages.start import StageError, start

logger = logging.getLogger(__name__)

EVALUATION = Path("metrics/evaluation.json")
VERDICT = Path("metrics/verdict.json")


def judge(evaluation: dict[str, Any], gate: Gate) -> list[str]:
    """Give the reasons to refuse the model; none means that it is approved."""
    name = evaluation["score"]
    candidate, champion = evaluation[name], evaluation["champion"].get(name)
    direction = 1 if evaluation["higher_is_better"] else -1
    reasons = []
    if direction * (candidate - gate.floor) < 0:
        reasons.append(f"{name} is {candidate:g}, worse than gate.floor {gate.floor:g}")
    if champion is None:
        if gate.without_champion == "fail":
            why = evaluation["champion"]["compared"]
            reasons.append(f"{why}, and gate.without_champion is fail")
    elif rounded(direction * (champion - candidate)) > gate.tolerance:  # 0.86 - 0.85 > 0.01
        reasons.append(
            f"{name} is {candidate:g}, worse than the champion's {champion:g} "
            f"by more than gate.tolerance {gate.tolerance:g}"
        )
    return reasons


def main() -> None:
    params = load_params()
    evaluation = read_figures(EVALUATION)
    name = evaluation["score"]

    reasons = judge(evaluation, params.gate)

    # what the gate demands stays out of it, so that another floor alone exports nothing anew
    write_figures(
        VERDICT,
        {
            "verdict": "refused" if reasons else "approved",
            "candidate": evaluation["candidate"],
            name: evaluation[name],
            "champion": evaluation["champion"],
        },
    )
    if reasons:
        raise StageError(
            f"The model was refused: {'; '.join(reasons)}. models/final/ keeps the last approved "
            "one. Improve the model, or move the gate in params.yaml if that is what you want."
        )
    logger.info("approved: %s %g", name, evaluation[name])


if __name__ == "__main__":
    start(main)
