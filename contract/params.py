"""params.yaml, typed: all that a run may vary, checked before any work begins."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError

from contract.drift_limits import Drift
from contract.errors import ContractError
from contract.features import Contract, Kind, of_form

PARAMS = Path("params.yaml")

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
CandidateName = Annotated[
    str, of_form("[a-z][a-z0-9_]*", "a name of small letters, digits and _, a letter first")
]
ClassPath = Annotated[str, of_form(r"\w+(\.\w+)+", "a class with its module: module.Class")]
Separator = Annotated[str, of_form(r"auto|.|\t", "auto or one character")]
IN_WORDS = {  # what pydantic calls types and limits, for those who know neither
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "model_type": "keys with values",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_long": "{max_length} items or fewer",
    "too_short": "{min_length} item or more",
    "tuple_type": "a list",
}


class Section(BaseModel, frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False):
    """One part of params.yaml; a key that it does not know is a mistake."""


class Data(Section, frozen=True):
    """Where the table lies and how to read it; `auto` means: find out."""

    source: Annotated[str, Field(min_length=1)]  # a local path, https:// or s3://
    format: Literal["auto", "csv", "tsv", "parquet", "xlsx", "jsonl"]
    separator: Separator
    decimal: Literal["auto", ".", ","]
    encoding: str
    missing: tuple[str, ...]  # cells that mean: no value


class Split(Section, frozen=True):
    """How many rows are held back for `evaluate`."""

    test_size: Share


class Component(Section, frozen=True):
    """Any importable scikit-learn compatible class and its fixed arguments."""

    class_: Annotated[ClassPath, Field(alias="class")]
    args: dict[str, Any] = {}


class Impute(Section, frozen=True):
    """What fills a gap, by kind; used only where the contract permits gaps."""

    numeric: Component
    nominal: Component
    ordinal: Component

    def of(self, kind: Kind) -> Component:
        return getattr(self, kind)


class Preprocessing(Section, frozen=True):
    """The steps from encoded columns to what the estimator sees."""

    impute: Impute
    numeric: tuple[Component, ...]
    nominal: tuple[Component, ...]
    ordinal: tuple[Component, ...]
    features: dict[str, tuple[Component, ...]]  # by feature's name, in place of its kind's
    joint: tuple[Component, ...]  # on all columns side by side


class PreprocessingChange(Section, frozen=True):
    """What one candidate has in place of the common preprocessing."""

    impute: Impute | None = None
    numeric: tuple[Component, ...] | None = None
    nominal: tuple[Component, ...] | None = None
    ordinal: tuple[Component, ...] | None = None
    features: dict[str, tuple[Component, ...]] | None = None
    joint: tuple[Component, ...] | None = None

    def applied_to(self, common: Preprocessing) -> Preprocessing:
        changed = {name: getattr(self, name) for name in self.model_fields_set}
        return common.model_copy(update=changed)


class Model(Component, frozen=True):
    """One entry of the catalogue: an estimator and the grid to search."""

    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    preprocessing: PreprocessingChange = PreprocessingChange()
    requirements: str = "requirements.txt"  # the file that installs its library


class Tune(Section, frozen=True):
    """The search for hyperparameters and its cross-validation."""

    strategy: Literal["grid", "random", "halving"]
    n_folds: Annotated[int, Field(ge=2)]
    n_iter: Positive  # combinations that `random` draws
    max_rows: Annotated[int, Field(ge=10)] | None  # rows searched; the refit takes all


class Ensemble(Section, frozen=True):
    """Candidates combined into one more candidate."""

    kind: Literal["none", "voting", "stacking"]
    members: tuple[str, ...]


class Select(Section, frozen=True):
    """How the winner is chosen."""

    tie_standard_errors: Annotated[float, Field(ge=0)]
    ensemble: Ensemble


class Prediction(Section, frozen=True):
    """What is told of a prediction."""

    clip: bool  # to the target's range
    level: Share  # of the prediction interval


class Evaluate(Section, frozen=True):
    """How exactly the chosen model is measured."""

    n_resamples: Annotated[int, Field(ge=100)]  # bootstrap
    confidence: Share
    n_permutations: Positive  # a feature, for its importance
    max_points: Positive  # drawn in a plot


class Gate(Section, frozen=True):
    """What a model must reach to be exported."""

    floor: float  # worst main score allowed; an upper limit where the score is an error
    tolerance: Annotated[float, Field(ge=0)]  # how much worse than the champion it may be
    without_champion: Literal["pass", "fail"]  # when there is none to compare with


class Export(Section, frozen=True):
    """When the exported model counts as equal to the pipeline."""

    tolerance: Annotated[float, Field(ge=0)]  # largest difference, in units of the target


class Params(Section, frozen=True):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    contract: Contract
    data: Data
    drift: Drift
    split: Split
    score: str
    preprocessing: Preprocessing
    candidates: Annotated[tuple[CandidateName, ...], Field(min_length=1)]
    models: dict[CandidateName, Model]
    tune: Tune
    select: Select
    prediction: Prediction
    evaluate: Evaluate
    gate: Gate
    export: Export

    @model_validator(mode="after")
    def _names_refer_to_something(self) -> Self:
        _expect_known("candidates", self.candidates, self.models, "models")
        _expect_each_once("candidates", self.candidates)
        if reserved := {"baseline", "ensemble"} & set(self.models):
            raise ValueError(f"models.{reserved.pop()} uses a reserved name, choose another")
        members = self.select.ensemble.members
        _expect_known("select.ensemble.members", members, self.candidates, "candidates")
        _expect_each_once("select.ensemble.members", members)
        if self.select.ensemble.kind != "none" and len(members) < 2:
            raise ValueError(
                f"select.ensemble.members are {list(members)}, expected two or more candidates"
            )
        return self

    @model_validator(mode="after")
    def _columns_refer_to_the_contract(self) -> Self:
        names = self.contract.names()
        _expect_known("preprocessing.features", self.preprocessing.features, names, "the contract")
        columns = [column.name for column in self.contract.columns]
        _expect_known("drift.columns", self.drift.columns, columns, "the contract")
        for name, model in self.models.items():
            where = f"models.{name}.preprocessing.features"
            _expect_known(where, model.preprocessing.features or (), names, "the contract")
        for feature in self.contract.features:
            if gaps := set(feature.categories) & set(self.data.missing):
                raise ValueError(
                    f"data.missing holds {gaps.pop()!r}, which is a category of {feature.name}; "
                    "expected words that mean a gap in every column"
                )
        return self


def _expect_known(where: str, given, known, where_known: str) -> None:
    for name in given:
        if name not in known:
            raise ValueError(
                f"{where} names {name!r}, expected names of {where_known}: {', '.join(known)}"
            )


def _expect_each_once(where: str, names: tuple[str, ...]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where} list {name!r} twice, expected each once")


def load_params(path: Path = PARAMS) -> Params:
    """Read and check all of params.yaml; raises ContractError naming each key that is wrong.

    The reader is the one DVC itself uses (YAML 1.2), so that a stage sees what DVC tracks:
    under YAML 1.1, `1e-3` would be a text and `no` a boolean.
    """
    try:
        raw = YAML(typ="safe").load(path)
    except OSError as error:
        raise ContractError(f"{path}: {error.strerror}. Run from the project's root.") from error
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ContractError(f"{path}{line} is not valid YAML: {error.problem}") from error
    except YAMLError as error:
        raise ContractError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, Mapping):
        raise ContractError(f"{path} holds {raw!r}, expected the sections of a run")
    try:
        # JSON, because only there does pydantic's strict mode take a list for a tuple
        return Params.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        problems = [_in_words(problem, raw) for problem in _causes(error.errors())]
        raise ContractError("\n".join(f"{path}: {problem}" for problem in problems)) from error


def _causes(problems: list) -> list:
    """Leave out the shortness of a list that only comes of its items being wrong."""
    places = [problem["loc"] for problem in problems]
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(place[:-1] == problem["loc"] for place in places if place)
    ]


def _in_words(problem: Mapping, raw: Mapping) -> str:
    """Say what is wrong with one key: where, what came, what was expected."""
    place = _key(problem["loc"], raw)
    if problem["type"] == "extra_forbidden":
        return f"{place} is not a known key{_suggestion(problem['loc'])}"
    if problem["type"] == "missing":
        return f"{place} is missing, expected a value"
    if problem["type"] == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    expected = problem["msg"].removeprefix("Input should be ")
    if problem["type"] in IN_WORDS:
        expected = IN_WORDS[problem["type"]].format_map(problem.get("ctx", {}))
    return f"{place} is {problem['input']!r}, expected {expected}"


def _key(location: tuple, raw: Any) -> str:
    """Write a path into params.yaml with dots; an item of a list that has a name goes by it."""
    key, here = "", raw
    for step in location:
        if step == "[key]":  # pydantic's mark of a key that is itself wrong
            break
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            here = None
        if isinstance(step, int):
            name = here.get("name") if isinstance(here, Mapping) else None
            key += f"[{name if name and isinstance(name, str) else step}]"
        else:
            key += f".{step}" if key else str(step)
    return key


def _suggestion(location: tuple) -> str:
    """Name the key that was probably meant, or those that the section knows."""
    section: Any = Params
    for step in location[:-1]:
        if isinstance(step, str) and step in section.model_fields:
            section = _model_in(section.model_fields[step].annotation) or section
    known = [field.alias or name for name, field in section.model_fields.items()]
    if close := get_close_matches(str(location[-1]), known, n=1):
        return f"; did you mean {close[0]}?"
    return f"; expected one of {', '.join(known)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model inside a type such as tuple[Feature, ...] or dict[str, Model]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(part) for part in get_args(annotation))
    return next((model for model in inner if model), None)
