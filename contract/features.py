"""The data contract: the target, the features, and the values that each may hold."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError


def of_form(pattern: str, in_words: str) -> AfterValidator:
    """Accept text that the pattern matches as a whole; `in_words` tells what was expected."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("form", in_words)
        return text

    return AfterValidator(check)


Kind = Literal["numeric", "nominal", "ordinal"]
Name = Annotated[str, of_form(r"\S(.*\S)?", "a name without blanks at its ends")]

PREDICTION = "(prediction)"  # stands for what a model predicts, beside its features


def _repeated(values: Iterable[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


class Column(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What target and features have in common."""

    name: Name
    dtype: Literal["float", "int"] = "float"  # numbers only
    range: tuple[float, float] | None = None  # numbers only, both ends allowed
    unit: str = ""
    description: str = ""
    former_names: tuple[Name, ...] = ()  # spellings under which older files hold this column

    @model_validator(mode="after")
    def _range_ascends(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            low, high = self.range
            raise ValueError(f"range is [{low:g}, {high:g}], expected the lower end first")
        return self

    @property
    def spellings(self) -> tuple[str, ...]:
        return (self.name, *self.former_names)

    @property
    def domain(self) -> str:
        """The values allowed, in words: '0 to 100 points' or 'one of gas, district'."""
        number = "a whole number" if self.dtype == "int" else "a number"
        if self.range is None:
            return " ".join([number, self.unit]).strip()
        low, high = self.range
        return " ".join([f"{low:g} to {high:g}", self.unit]).strip()


class Target(Column, frozen=True):
    """The number that the model predicts."""


class Feature(Column, frozen=True):
    """One input column and the values it may hold."""

    kind: Kind
    categories: tuple[Name, ...] = ()  # not for numbers; of an ordinal feature from low to high
    missing: bool = False  # whether a row may leave it out

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if self.kind == "numeric":
            if self.range is None:
                raise ValueError("range is missing, expected [lowest, highest] for a number")
            if self.categories:
                raise ValueError(
                    f"categories are {list(self.categories)}, expected none where kind is numeric"
                )
            return self
        for key in ("range", "dtype"):
            value = getattr(self, key)
            if value != Feature.model_fields[key].default:
                raise ValueError(f"{key} is {value!r}, expected none where kind is {self.kind}")
        if len(self.categories) < 2:
            raise ValueError(f"categories are {list(self.categories)}, expected two or more")
        if repeated := _repeated(self.categories):
            raise ValueError(f"categories list {repeated[0]!r} twice, expected each once")
        return self

    @property
    def domain(self) -> str:
        if self.kind == "numeric":
            return super().domain
        return f"one of {', '.join(self.categories)}"


class Contract(BaseModel, frozen=True, extra="forbid"):
    """All columns of the problem; everything that names a column is derived from it."""

    target: Target
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_name_is_used_twice(self) -> Self:
        if repeated := _repeated(name for column in self.columns for name in column.spellings):
            raise ValueError(
                f"{repeated[0]!r} names two columns, expected every name and former name once"
            )
        if PREDICTION in {column.name for column in self.columns}:
            raise ValueError(f"{PREDICTION!r} stands for the model's predictions, expected another")
        return self

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.features, self.target)

    def names(self) -> list[str]:
        """The features' names, in the order of the model's input."""
        return [feature.name for feature in self.features]

    def spelling_to_name(self) -> dict[str, str]:
        """Every spelling that a file may use for a column, with the column's name."""
        return {spelling: column.name for column in self.columns for spelling in column.spellings}
