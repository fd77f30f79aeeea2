"""Write the parts of README.md that follow from dvc.yaml and metrics/, or check them.

`python -m ops.readme` writes, `python -m ops.readme --check` fails if that would change anything.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from contract.figures import read_figures
from contract.params import load_params

README = Path("README.md")
PIPELINE = Path("dvc.yaml")
EVALUATION = Path("metrics/evaluation.json")
LEADERBOARD = Path("metrics/leaderboard.csv")


def read_stages(pipeline: Path) -> dict[str, dict[str, Any]]:
    """Give each stage of dvc.yaml by name; one of a `foreach` stands for all of its kind."""
    stages = YAML(typ="safe").load(pipeline)["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def graph(stages: dict[str, dict[str, Any]]) -> str:
    """Draw who feeds whom as a Mermaid flowchart, from the paths that stages give and take."""
    giver = {path: name for name, stage in stages.items() for path in _outputs(stage)}
    edges = {
        (giver[out], name): None
        for name, stage in stages.items()
        for dep in stage["deps"]
        for out in giver
        if (dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/"))
        and giver[out] != name
    }
    arrows = "\n".join(f"    {giver} --> {taker}" for giver, taker in edges)
    return f"```mermaid\nflowchart LR\n{arrows}\n```"


def _outputs(stage: dict[str, Any]) -> list[str]:
    entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def stage_table(stages: dict[str, dict[str, Any]]) -> str:
    lines = ["| stage | what it is for |", "|---|---|"]
    lines += [
        f"| [`{name}`](stages/{name}.py) | {stage['desc']} |" for name, stage in stages.items()
    ]
    return "\n".join(lines)


def results(evaluation: dict[str, Any], leaderboard: list[dict[str, str]], unit: str) -> str:
    """Tell the chosen model's scores on the test rows, and the candidates' in cross-validation."""
    score = evaluation["score"]
    confidence, interval = evaluation["confidence"], evaluation["interval"]
    lines = [
        f"`{evaluation['candidate']}` on {evaluation['n_test_rows']} test rows: "
        f"{_words(score)} **{evaluation[score]:.3g}** ({confidence['lower']:.3g} to "
        f"{confidence['upper']:.3g} with {confidence['level']:.0%} confidence), "
        f"mean absolute error {evaluation['mean_absolute_error']:.3g} {unit}; the interval of "
        f"± {interval['half_width']:.3g} {unit} held {interval['coverage']:.1%} of them.",
        "",
        f"| candidate | {_words(score)}, cross-validated | standard error |",
        "|---|---|---|",
    ]
    for row in leaderboard:
        name = f"**{row['candidate']}** (chosen)" if row["chosen"] == "True" else row["candidate"]
        lines.append(f"| {name} | {float(row['mean']):.3f} | {float(row['standard_error']):.3f} |")
    return "\n".join(lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def fill(text: str, parts: dict[str, str]) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` for each part."""
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"
    return text


def fresh(readme: str) -> str:
    """Give the README as it should be now."""
    stages, unit = read_stages(PIPELINE), load_params().contract.target.unit
    with LEADERBOARD.open(encoding="utf-8", newline="") as file:
        leaderboard = list(csv.DictReader(file))
    parts = {
        "graph": graph(stages),
        "stages": stage_table(stages),
        "results": results(read_figures(EVALUATION), leaderboard, unit),
    }
    return fill(readme, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    now = README.read_text("utf-8")
    then = fresh(now)
    if check and now != then:
        sys.exit(f"ERROR: {README} is stale. Run `python -m ops.readme` and commit.")
    if not check:
        README.write_text(then, "utf-8")


if __name__ == "__main__":
    main()
