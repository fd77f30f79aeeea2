"""The section `drift` of params.yaml: how far new rows may be from the reference."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, Field, model_validator

from contract.features import Kind

Action = Literal["warn", "fail"]
ColumnMeasure = Literal[
    "population_stability_index",
    "jensen_shannon_distance",
    "wasserstein_distance",
    "difference_of_means",
    "unseen_share",
    "change_of_gaps",
]
PairMeasure = Literal["change_of_correlation", "difference_of_pair"]
Measure = Literal[ColumnMeasure, PairMeasure]
ACTIONS: tuple[Action, ...] = get_args(Action)

Effect = Annotated[float, Field(ge=0)]
Chance = Annotated[float, Field(gt=0, lt=0.5)]


class DriftSection(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A part of the section; a key that it does not know is a mistake."""


class Limit(DriftSection, frozen=True):
    """From which value on a measure is told, and from which it stops the run; null for never."""

    warn: Effect | None
    fail: Effect | None

    @model_validator(mode="after")
    def _warns_first(self) -> Self:
        if self.warn is not None and self.fail is not None and self.warn > self.fail:
            raise ValueError(f"warn is {self.warn:g}, expected fail ({self.fail:g}) or less")
        return self

    def of(self, action: Action) -> float | None:
        return getattr(self, action)


class Chances(DriftSection, frozen=True):
    """How seldom chance alone may exceed what counts as drift, for one measure of one column."""

    warn: Chance
    fail: Chance

    def of(self, action: Action) -> float:
        return getattr(self, action)


class Limits(DriftSection, frozen=True):
    """Limits by kind of column, and of pairs of numbers; a measure that is left out has none."""

    numeric: dict[ColumnMeasure, Limit]
    nominal: dict[ColumnMeasure, Limit]
    ordinal: dict[ColumnMeasure, Limit]
    pairs: dict[PairMeasure, Limit]


class Drift(DriftSection, frozen=True):
    """How new rows are compared with the reference."""

    enabled: bool
    min_rows: Annotated[int, Field(ge=1)]  # with fewer, on either side, a failure only warns
    n_bins: Annotated[int, Field(ge=2, le=50)]  # of numbers, each of about as many reference rows
    chance: Chances
    limits: Limits
    columns: dict[str, dict[Measure, Limit]]  # by name, in place of its kind's

    def of_column(self, name: str, kind: Kind) -> Mapping[ColumnMeasure, Limit]:
        return {**getattr(self.limits, kind), **self.columns.get(name, {})}

    def of_pair(self, a: str, b: str) -> Mapping[PairMeasure, Limit]:
        """Give the limits of a pair; where both columns have their own, those of the second."""
        return {**self.limits.pairs, **self.columns.get(a, {}), **self.columns.get(b, {})}
