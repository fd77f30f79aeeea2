"""The model card: what the model is, was trained on, can do and cannot."""

from typing import Any

import pandas as pd

from contract.features import Contract

SQUARED = ("mean_squared_error",)  # not in the target's unit


def write_card(
    contract: Contract, evaluation: dict[str, Any], slices: pd.DataFrame, comparison: dict[str, Any]
) -> str:
    """Write the card in Markdown; `slices` has the columns that `evaluate` writes."""
    target, score = contract.target, evaluation["score"]
    confidence, interval = evaluation["confidence"], evaluation["interval"]
    unit = f" {target.unit}" if target.unit else ""
    return f"""# Model card: {target.name}

Predicts `{target.name}` ({target.domain}){_dash(target.description)}
from {len(contract.features)} features. The estimator is the candidate `{evaluation["candidate"]}`,
stored as {comparison["format"]}, chosen by cross-validation on the train rows alone.

## Scores on {evaluation["n_test_rows"]} test rows that no choice has seen

| score | value |
|---|---|
{_score_lines(evaluation, unit)}

With {confidence["level"]:.0%} confidence (bootstrap), {_words(score)} lies between
{confidence["lower"]:g} and {confidence["upper"]:g}.

A prediction comes with the interval prediction ± {interval["half_width"]:g}{unit}, made to hold
{interval["level"]:.0%} of new rows; it held {interval["coverage"]:.1%} of the test rows.

## What goes in

| feature | kind | values | may be missing | meaning |
|---|---|---|---|---|
{_feature_lines(contract)}

## Scores by group

{_slice_table(slices, score)}

## Limits

- It knows rows like those it was trained on, inside the values above. It has no notion of
  cause: changing an input of a real case need not change the outcome as the prediction does.
- Small groups have wide intervals; where a group above scores worse than the others, do not
  rest a decision about its members on the prediction.
- The interval has one width for all rows and holds on average, not within every group.
- Watch the inputs in service: the figures above hold while new rows resemble the train rows.
"""


def _dash(text: str) -> str:
    return f" — {text}" if text else ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _score_lines(evaluation: dict[str, Any], unit: str) -> str:
    scores = {key: value for key, value in evaluation.items() if type(value) is float}
    units = {name: unit for name in scores if name.endswith("_error") and name not in SQUARED}
    return "\n".join(
        f"| {_words(name)} | {value:g}{units.get(name, '')} |" for name, value in scores.items()
    )


def _feature_lines(contract: Contract) -> str:
    return "\n".join(
        f"| `{feature.name}` | {feature.kind} | {_cell(feature.domain)} "
        f"| {'yes' if feature.missing else 'no'} | {_cell(feature.description)} |"
        for feature in contract.features
    )


def _slice_table(slices: pd.DataFrame, score: str) -> str:
    if slices.empty:
        return "The contract has no categorical feature."
    lines = [
        f"| feature | group | rows | {_words(score)} | from | to |",
        "|---|---|---|---|---|---|",
    ]
    for group in slices.to_dict("records"):
        figures = [group[key] for key in (score, "lower", "upper")]
        told = " | ".join("n/a" if pd.isna(figure) else f"{figure:g}" for figure in figures)
        name = _cell(group["group"])
        lines.append(f"| {group['feature']} | {name} | {group['n_rows']} | {told} |")
    return "\n".join(lines)
