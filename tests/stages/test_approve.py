"""The gate: the floor, the champion, and what a refusal says and leaves."""

import pytest

from contract.figures import read_figures, write_figures
from contract.params import Gate
from stages import approve
from stages.start import StageError
from tests.example import write_params

NONE = {"compared": "there is no champion"}


def evaluation(score: float, champion: float | None = None, error: bool = False) -> dict:
    name = "root_mean_squared_error" if error else "r2_score"
    compared = NONE if champion is None else {"compared": "recorded", name: champion}
    return {
        "candidate": "ridge",
        "score": name,
        "higher_is_better": not error,
        name: score,
        "champion": compared,
    }


def gate(floor: float, tolerance: float = 0.01, without_champion: str = "pass") -> Gate:
    return Gate(floor=floor, tolerance=tolerance, without_champion=without_champion)


@pytest.mark.parametrize(
    ("score", "champion", "error", "floor", "reasons"),
    [
        (0.80, None, False, 0.80, []),
        (0.79, None, False, 0.80, ["r2_score is 0.79, worse than gate.floor 0.8"]),
        (-0.5, None, False, -1, []),
        (6.0, None, True, 6.0, []),
        (6.1, None, True, 6.0, ["root_mean_squared_error is 6.1, worse than gate.floor 6"]),
        (0.1, None, True, 6.0, []),
        (0.86, 0.86, False, 0.80, []),
        (0.90, 0.86, False, 0.80, []),
        (0.85, 0.86, False, 0.80, []),  # by the tolerance, but not by more
        (
            0.8499,
            0.86,
            False,
            0.80,
            ["r2_score is 0.8499, worse than the champion's 0.86 by more than gate.tolerance 0.01"],
        ),
        (5.01, 5.0, True, 6.0, []),
        (4.0, 5.0, True, 6.0, []),
        (
            5.02,
            5.0,
            True,
            6.0,
            [
                "root_mean_squared_error is 5.02, worse than the champion's 5 by more than "
                "gate.tolerance 0.01"
            ],
        ),
    ],
)
def test_score_is_held_against_floor_and_champion(score, champion, error, floor, reasons):
    assert approve.judge(evaluation(score, champion, error), gate(floor)) == reasons


@pytest.mark.parametrize("tenths", range(-20, 100))
def test_worse_by_exactly_the_tolerance_is_allowed_whatever_the_rounding(tenths):
    champion = tenths / 10
    worse = round(champion - 0.07, 2)

    assert approve.judge(evaluation(worse, champion), gate(-10, 0.07)) == []
    assert approve.judge(evaluation(round(worse - 0.01, 2), champion), gate(-10, 0.07)) != []


def test_both_reasons_are_told():
    reasons = approve.judge(evaluation(0.5, 0.9), gate(0.8))

    assert len(reasons) == 2


@pytest.mark.parametrize("compared", ["there is no champion", "not compared"])
def test_without_a_champions_score_the_gate_says_whether_that_is_enough(compared):
    found = evaluation(0.9) | {"champion": {"compared": compared}}

    assert approve.judge(found, gate(0.8, without_champion="pass")) == []
    assert approve.judge(found, gate(0.8, without_champion="fail")) == [
        f"{compared}, and gate.without_champion is fail"
    ]


def test_approval_is_written_with_both_scores_and_without_the_gate(project):
    write_figures(approve.EVALUATION, evaluation(0.9, 0.88))

    approve.main()

    assert read_figures(approve.VERDICT) == {
        "verdict": "approved",
        "candidate": "ridge",
        "r2_score": 0.9,
        "champion": {"compared": "recorded", "r2_score": 0.88},
    }


def test_another_gate_that_the_model_passes_too_leaves_the_same_verdict(project):
    write_figures(approve.EVALUATION, evaluation(0.9, 0.88))
    approve.main()
    before = approve.VERDICT.read_bytes()
    write_params({"gate.floor": 0.1, "gate.tolerance": 0.5})

    approve.main()

    assert approve.VERDICT.read_bytes() == before


def test_refusal_is_written_and_stops_the_run_with_the_scores_and_what_to_do(project):
    write_params({"gate.floor": 0.95})
    write_figures(approve.EVALUATION, evaluation(0.9, 0.99))

    with pytest.raises(StageError) as error:
        approve.main()

    assert str(error.value) == (
        "The model was refused: r2_score is 0.9, worse than gate.floor 0.95; "
        "r2_score is 0.9, worse than the champion's 0.99 by more than gate.tolerance 0.01. "
        "models/final/ keeps the last approved one. Improve the model, or move the gate in "
        "params.yaml if that is what you want."
    )
    assert read_figures(approve.VERDICT)["verdict"] == "refused"
