"""A profile: what rows look like, column by column, in figures small enough for git.

Counts, gaps, mean, spread and a histogram on fixed edges; for pairs of numbers how they hang
together. No row can be read back from it. It names the columns that it was made for, so that one
of another contract is compared on what both have.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from contract.errors import ContractError
from contract.features import Kind

REFERENCE = Path("data/reference.json")
ACCEPT = "python -m ops.accept"

Count = Annotated[int, Field(ge=0)]
Spread = Annotated[float, Field(ge=0)]


class Figures(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Figures as they stand in a file; none of them is infinite or undefined."""


class Axis(Figures, frozen=True):
    """What a column's values are counted by: bins between edges, or categories."""

    kind: Kind
    edges: tuple[float, ...] = ()  # of numbers; a bin holds its lower edge, the last both
    categories: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        numbers = self.kind == "numeric"
        if (len(self.edges) < 2) == numbers or bool(self.categories) == numbers:
            raise ValueError("expected edges for a number, categories for the other kinds")
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges do not ascend")
        return self

    @property
    def n_counts(self) -> int:
        """Bins with those below and above; categories with the unseen."""
        return len(self.edges) + 1 if self.edges else len(self.categories) + 1


class ColumnProfile(Figures, frozen=True):
    """One column: how many values, and how they are spread over its axis."""

    axis: Axis
    n_values: Count
    n_gaps: Count
    counts: tuple[Count, ...]  # numbers: below the edges, each bin, above; else by category, unseen
    unseen: tuple[str, ...] = ()  # examples of categories that the axis does not have
    mean: float | None = None  # numbers only, from here on
    std: Spread | None = None
    min: float | None = None
    max: float | None = None
    quantiles: dict[str, float] = {}  # by share of values below

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if len(self.counts) != self.axis.n_counts or sum(self.counts) != self.n_values:
            raise ValueError("counts do not add up to n_values over the axis")
        if self.axis.kind == "numeric" and self.n_values and None in (self.mean, self.min):
            raise ValueError("mean, min or max is missing")
        return self

    @property
    def kind(self) -> Kind:
        return self.axis.kind

    @property
    def gap_share(self) -> float:
        return self.n_gaps / max(self.n_values + self.n_gaps, 1)

    @property
    def shares(self) -> dict[str, float]:
        """The share of each category, the unseen left out; all 0 if there is no value."""
        n = max(self.n_values, 1)
        counted = zip(self.axis.categories, self.counts[:-1], strict=True)
        return {category: count / n for category, count in counted}

    @property
    def ends(self) -> np.ndarray:
        """The edges with the least and the greatest value round them, shape (n_counts + 1,)."""
        edges = self.axis.edges
        low = edges[0] if self.min is None else min(self.min, edges[0])
        high = edges[-1] if self.max is None else max(self.max, edges[-1])
        return np.array([low, *edges, high])


class PairProfile(Figures, frozen=True):
    """Two numbers a and b in the rows that have both."""

    a: str
    b: str
    n_rows: Count
    correlation: Annotated[float, Field(ge=-1, le=1)] | None  # None if one of them is constant
    mean: float | None  # of a - b
    std: Spread | None  # of a - b

    @property
    def name(self) -> str:
        return f"{self.a} - {self.b}"


class Profile(Figures, frozen=True):
    """All columns, and all pairs of numbers."""

    format: Literal[1] = 1
    n_rows: Count
    columns: dict[str, ColumnProfile]
    pairs: tuple[PairProfile, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, column in self.columns.items():
            if column.n_values + column.n_gaps != self.n_rows:
                raise ValueError(f"{name} does not have n_rows values and gaps")
        for pair in self.pairs:
            if not {pair.a, pair.b} <= set(self.columns):
                raise ValueError(f"{pair.name} is a pair of columns that are not there")
        return self

    @property
    def axes(self) -> dict[str, Axis]:
        return {name: column.axis for name, column in self.columns.items()}

    def to_json(self) -> str:
        """Write a line for each column and pair, so that a review shows what moved."""
        columns = [f"{_compact(name)}: {_plain(c)}" for name, c in self.columns.items()]
        pairs = [_plain(pair) for pair in self.pairs]
        return (
            f'{{\n"format": {self.format},\n"n_rows": {self.n_rows},\n'
            f'"columns": {_lines("{", columns, "}")},\n"pairs": {_lines("[", pairs, "]")}\n}}\n'
        )


def _plain(model: BaseModel) -> str:
    return _compact(model.model_dump(mode="json", exclude_defaults=True))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(begin: str, items: list[str], end: str) -> str:
    return "\n".join([begin, ",\n".join(items), end]) if items else begin + end


def parse_profile(text: str | bytes, where: str, mend: str) -> Profile:
    """Read a profile's JSON; raises ContractError that says where it is damaged."""
    try:
        return Profile.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "its text"
        raise ContractError(
            f"{where} is not a whole profile: {place}: {problem['msg']}. {mend}"
        ) from None


def read_reference(path: Path = REFERENCE) -> Profile | None:
    """Read the accepted reference; None while there is none, which the file says by `{}`."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ContractError(f"{path} is not text: {error}. {_MEND}") from None
    return None if text.strip() == "{}" else parse_profile(text, str(path), _MEND)


_MEND = f"Take it back from git, write it anew with `{ACCEPT} --yes`, or empty it to {{}}."


def not_compared(reference: Mapping[str, Axis], current: Mapping[str, Axis]) -> list[str]:
    """Say in sentences which columns only one side has, or has as another kind."""
    gone = [name for name in reference if name not in current]
    new = [name for name in current if name not in reference]
    other = [n for n, axis in current.items() if n in reference and axis.kind != reference[n].kind]
    told = []
    if gone:
        told.append(f"The reference has {', '.join(gone)}, the contract has not.")
    if new:
        told.append(f"The reference was made without {', '.join(new)}.")
    if other:
        kinds = [f"{n} ({reference[n].kind}, now {current[n].kind})" for n in other]
        told.append(f"The reference holds as another kind: {', '.join(kinds)}.")
    return told
