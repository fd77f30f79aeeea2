"""One check for three ways in, JSON, the form and the cells of a file, made from the contract."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from reprlib import Repr
from typing import Any

from pydantic_core import SchemaValidator, ValidationError
from pydantic_core import core_schema as cs

from contract.features import Contract, Feature
from serve.errors import CheckError, Problem

BLANKS = " \t\n\r\v\f"  # that may surround a cell; a no-break space, say, is part of it
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
N_LISTED = 100  # problems told one by one; all are counted
N_SHOWN = 100  # characters of a value, and of a name that the contract does not know
EXACT_WHOLE = 2.0**53  # up to here every whole number is a float64
LONG_INT_BITS = 1000  # from here on, writing out an integer takes long, and tells nothing

RULES = {  # pydantic's names of errors; those not listed mean a wrong type
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "finite_number": "not_finite",
    "int_from_float": "not_whole",
    "greater_than_equal": "out_of_range",
    "less_than_equal": "out_of_range",
    "literal_error": "unknown_category",
}
REASONS = {
    "missing": "required, expected {domain}",
    "wrong_type": "expected {type}, {domain}",
    "not_whole": "expected {type}, {domain}",
    "not_finite": "expected a finite number, {domain}",
    "out_of_range": "expected {domain}",
    "unknown_category": "expected {domain}",
}


class Check:
    """The rules of a contract, compiled.

    A checked row is a dict with exactly the contract's features, in their order: int, float,
    category as text, or None for a permitted gap. What breaks the contract raises CheckError,
    which names all problems at once, the first 100 (or one for each feature) in words.
    """

    def __init__(self, contract: Contract):
        self.contract = contract
        self._features = {feature.name: feature for feature in contract.features}
        self._spellings = {name for each in contract.features for name in each.spellings}
        self._json = SchemaValidator(_row_schema(contract, as_text=False))
        self._text = SchemaValidator(_row_schema(contract, as_text=True))
        self._cell = {
            name: SchemaValidator(_value_schema(feature, as_text=True))
            for name, feature in self._features.items()
        }

    def json_row(self, fields: Any) -> dict[str, Any]:
        """Check one JSON object; a number as text is no number."""
        try:
            return self._json.validate_python(fields)
        except ValidationError:
            found = self._found()
            self._explain(self._json, fields, found)
        raise found.error()

    def json_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Check a list of JSON objects; problems name the place in it, from 0."""
        checked, found = [], self._found()
        for place, fields in enumerate(rows):
            try:
                checked.append(self._json.validate_python(fields))
            except ValidationError:
                self._explain(self._json, fields, found, place)
        if found:
            raise found.error()
        return checked

    def text_row(self, cells: Mapping[str, str]) -> dict[str, Any]:
        """Check a form: numbers are text, blanks around a value do not count, no text is a gap."""
        fields = {name: cell.strip(BLANKS) or None for name, cell in cells.items()}
        try:
            return self._text.validate_python(fields)
        except ValidationError:
            found = self._found()
            self._explain(self._text, fields, found)
        raise found.error()

    def text_cell(self, name: str, cell: str) -> Any:
        """Check one feature as `text_row` does; raises CheckError with one problem."""
        value = cell.strip(BLANKS) or None
        try:
            return self._cell[name].validate_python(value)
        except ValidationError as error:
            told = error.errors(include_url=False)[0]
        raise CheckError([_problem(self._features[name], told["type"], value)])

    def _found(self) -> "Found":
        return Found(max(N_LISTED, len(self._features)))

    def _explain(
        self, rules: SchemaValidator, fields: Any, found: "Found", row: int | None = None
    ) -> None:
        """Find what is wrong with fields that the rules refused."""
        names = ", ".join(self._features)
        if not isinstance(fields, dict):
            reason = f"expected an object with the fields {names}"
            found.add(Problem("", shown(fields), reason, "wrong_type"), row)
            return
        # the others apart: there may be a million of them, or names that UTF-8 cannot write
        known = {name: value for name, value in fields.items() if name in self._spellings}
        strange = [name for name in fields if name not in known]
        try:
            rules.validate_python(known)
        except ValidationError as error:
            for told in error.errors(include_url=False):
                name = told["loc"][0]
                if told["type"] == "extra_forbidden":  # a second spelling of the same feature
                    strange.append(name)
                    continue
                feature = self._features[name]
                value = next((known[each] for each in feature.spellings if each in known), None)
                found.add(_problem(feature, told["type"], value), row)
        for name in strange:
            reason = f"unknown field, expected only {names}"
            found.add(Problem(shown(name), shown(fields[name]), reason, "unknown_field"), row)


def bounds(feature: Feature) -> tuple[float, float]:
    """Give a number's range, as far as whole ones can be told from their neighbours."""
    low, high = feature.range
    if feature.dtype == "int":
        return max(low, -EXACT_WHOLE), min(high, EXACT_WHOLE)
    return low, high


class Found:
    """Problems so far: the first ones, and how many there are of each field and rule."""

    def __init__(self, n_listed: int = N_LISTED):
        self.problems: list[Problem] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self._n_listed = n_listed

    def __bool__(self) -> bool:
        return bool(self.counts)

    def add(self, problem: Problem, row: int | None = None) -> None:
        # a client's own names are endless, and may hold what no log should
        field = "" if problem.rule == "unknown_field" else problem.field
        self.counts[field, problem.rule] += 1
        if len(self.problems) < self._n_listed:
            self.problems.append(replace(problem, row=row))

    def error(self) -> CheckError:
        return CheckError(self.problems, self.counts.total(), self.counts)


def shown(value: Any) -> Any:
    """Give a value as an answer may repeat it: plain JSON, and short."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        if value.bit_length() < 64:
            return value
        n_digits = int(value.bit_length() * math.log10(2)) + 1
        long = value.bit_length() > LONG_INT_BITS
        return f"a number of about {n_digits} digits" if long else _cut(str(value))
    return _cut(value if isinstance(value, str) else _BRIEF.repr(value))


_BRIEF = Repr()
_BRIEF.maxlevel = 2


def _cut(text: str) -> str:
    text = text if len(text) <= N_SHOWN else text[: N_SHOWN - 1] + "…"
    return text.encode("utf-8", "replace").decode()  # JSON can write halves of a surrogate pair


def _problem(feature: Feature, error_type: str, value: Any) -> Problem:
    """Say in words what is wrong with a feature's value; None stands for no value at all."""
    rule = RULES.get(error_type, "wrong_type")
    if value is None:
        rule = "missing"
    elif rule == "unknown_category" and not isinstance(value, str):
        rule = "wrong_type"
    elif rule == "wrong_type" and _is_int(value) and not feature.categories:
        rule = "out_of_range"  # too large for a float
    number = "a whole number" if feature.dtype == "int" else "a number"
    reason = REASONS[rule].format(
        domain=feature.domain, type="text" if feature.categories else number
    )
    if rule == "unknown_category" and (meant := _same_but_for_case(value, feature)):
        reason += f"; did you mean {meant}?"
    return Problem(feature.name, shown(value), reason, rule)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _same_but_for_case(value: str, feature: Feature) -> str | None:
    folded = value.casefold()
    return next((each for each in feature.categories if each.casefold() == folded), None)


def _row_schema(contract: Contract, as_text: bool) -> cs.CoreSchema:
    fields = {feature.name: _field_schema(feature, as_text) for feature in contract.features}
    return cs.typed_dict_schema(
        fields,
        extra_behavior="forbid",
        config=cs.CoreConfig(loc_by_alias=False),  # problems under the contract's names
    )


def _field_schema(feature: Feature, as_text: bool) -> cs.TypedDictField:
    value = _value_schema(feature, as_text)
    if feature.missing:
        value = cs.with_default_schema(value, default=None)
    spellings = [[name] for name in feature.spellings]
    return cs.typed_dict_field(value, required=not feature.missing, validation_alias=spellings)


def _value_schema(feature: Feature, as_text: bool) -> cs.CoreSchema:
    if feature.categories:
        value = cs.literal_schema(list(feature.categories))
    else:
        value = _number_schema(feature, as_text)
    return cs.nullable_schema(value) if feature.missing else value


def _number_schema(feature: Feature, as_text: bool) -> cs.CoreSchema:
    """Take a number in range; of text, only what the pattern calls one.

    A whole number passes through float first, which refuses text and booleans in JSON, and takes
    72.0 as well as 72: pandas writes whole columns so as soon as one cell is empty.
    """
    low, high = bounds(feature)
    steps = [cs.float_schema(ge=low, le=high, allow_inf_nan=False, strict=not as_text)]
    if as_text:
        steps.insert(0, cs.str_schema(pattern=NUMBER, strict=True))
    if feature.dtype == "int":
        steps.append(cs.int_schema())
    return cs.chain_schema(steps)
