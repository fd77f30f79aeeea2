"""benchmarks/results.md: a part for each section, so that one can be measured anew alone."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results.md")
HEAD = """# What pipeline and server cost

Written by `make bench`. Each part names the command that measures it anew and the machine it was
measured on; what is compared was measured in one run, so look at ratios before seconds.
"""


@dataclass(frozen=True)
class Section:
    """What one measurement found, in Markdown."""

    title: str
    parts: tuple[str, ...]  # paragraphs and tables


def verdict(what: str, value: float, limit: float, at_least: bool = False) -> str:
    """Say in a line whether a figure reached its target."""
    reached = value >= limit if at_least else value <= limit
    words = "at least" if at_least else "at most"
    mark = "reached" if reached else "**missed**"
    return f"- {what}: **{value:.2f}**, target {words} {limit:.2f}: {mark}"


def make_table(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Write a Markdown table; the first column is text, the others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: str | float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def update(path: Path, name: str, section: Section, quick: bool) -> None:
    """Write a section in place of what an earlier run wrote under the same title."""
    command = f"python -m benchmarks --only {name}{' --quick' if quick else ''}"
    told = [f"## {section.title}", f"`{command}` on {machine()}.", *section.parts]
    kept = _sections(path.read_text("utf-8")) if path.exists() else {}
    kept[section.title] = "\n\n".join(told)
    path.write_text(
        "\n".join([HEAD, "\n\n".join(kept[title] for title in sorted(kept, key=_number)), ""])
    )


def _number(title: str) -> int:
    return int(title.split()[0])


def _sections(text: str) -> dict[str, str]:
    parts = text.split("\n## ")[1:]
    return {part.split("\n", 1)[0]: f"## {part.strip()}" for part in parts}


def machine() -> str:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory_gb:.0f} GB, Python {platform.python_version()}"
