"""Show the newest predictions, newest last."""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from contract.predictions.feature_columns import FEATURES
from contract.predictions.read import Reader, open_log_for_reading
from contract.predictions.settings import LogSettings
from ops.predictions.command import add_local, note, parse_count, printable, say

Row = dict[str, Any]
LOOK_S = 0.5
N_FOLLOWED = 2_000  # of the newest, in which new ones are looked for
PIPE = (160, 24)  # columns and lines that stand for those of a terminal
FEWEST_COLUMNS = 24  # of the terminal, for the features
LESS_NEEDED = ("id", "model", "ms")  # where the terminal is narrow, the first of them first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", metavar="N", type=parse_count, default=20, help="how many (20)")
    parser.add_argument("--follow", action="store_true", help="and each new one, until Ctrl-C")
    add_local(parser)


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    with closing(open_log_for_reading(settings, options.local)) as reader:
        n_rows = max(options.n, N_FOLLOWED) if options.follow else options.n
        rows = reader.newest(n_rows).to_pylist()
        table = Table(shutil.get_terminal_size(PIPE).columns)
        if not rows:
            note(f"{reader.name} holds no predictions yet.")
        if rows or options.follow:
            say(table.header())
            show(table, rows[-options.n :])
        if options.follow:
            follow(reader, table, {row["id"] for row in rows})


def follow(reader: Reader, table: "Table", seen: set[str]) -> None:
    """Show new predictions, for ever; says so where more came than it looked at."""
    while True:
        time.sleep(LOOK_S)
        if seen.issuperset(reader.newest(1)["id"].to_pylist()):
            continue
        rows = reader.newest(N_FOLLOWED).to_pylist()
        new = [row for row in rows if row["id"] not in seen]
        if len(new) == N_FOLLOWED:
            say("... more came than are shown here")
        show(table, new)
        seen = {row["id"] for row in rows}


def show(table: "Table", rows: Iterable[Row]) -> None:
    for row in rows:
        say(table.line(row))


class Table:
    """Lines that fit a terminal: what every prediction has, and as much as fits of its features."""

    def __init__(self, width: int) -> None:
        self._columns = {**CELLS}
        for name in LESS_NEEDED:
            if width - self._width() < FEWEST_COLUMNS:
                del self._columns[name]
        self._features_width = max(width - self._width(), 1)

    def header(self) -> str:
        names = [_fit(name, width) for name, (width, _) in self._columns.items()]
        return "  ".join([*names, FEATURES])

    def line(self, row: Row) -> str:
        cells = [_fit(printable(cell(row)), width) for width, cell in self._columns.values()]
        features = _cut(printable(_features(row[FEATURES])), self._features_width)
        return "  ".join([*cells, features]).rstrip()

    def _width(self) -> int:
        return sum(abs(width) + 2 for width, _ in self._columns.values())


def _fit(text: str, width: int) -> str:
    """Fill up or cut; a width below 0 is that of a column aligned to the left."""
    return _cut(text, abs(width)).rjust(width) if width > 0 else _cut(text, -width).ljust(-width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _features(text: str) -> str:
    try:
        features = json.loads(text)
    except ValueError:
        return text
    if not isinstance(features, dict):
        return text
    return "  ".join(
        f"{name}={'-' if value is None else value}" for name, value in features.items()
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


CELLS: dict[str, tuple[int, Callable[[Row], str]]] = {  # width, text
    "time (UTC)": (-14, lambda row: f"{row['time']:%m-%d %H:%M:%S}"),
    "id": (-36, lambda row: row["id"]),
    "model": (-12, lambda row: row["model"]),
    "source": (-6, lambda row: row["source"]),
    "prediction": (10, lambda row: _number(row["prediction"])),
    "interval": (-15, lambda row: f"{_number(row['lower'])}..{_number(row['upper'])}"),
    "ms": (6, lambda row: f"{row['latency_ms']:.1f}"),
}
