"""From params to a scikit-learn pipeline: impute, transform, estimate."""

from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline, make_pipeline

from contract.errors import ContractError
from contract.features import Contract, Feature
from contract.params import Component, Model, Preprocessing

ESTIMATOR = "model"  # the pipeline's last step; grids name its hyperparameters without prefix


def make_candidate(
    contract: Contract, common: Preprocessing, model: Model, name: str, seed: int
) -> Pipeline:
    """Make the unfitted pipeline of one entry of the catalogue.

    Raises ContractError if its class cannot be imported or refuses its arguments.
    """
    where = f"models.{name}"
    estimator = build(model, where, seed, install=model.requirements)
    steps = model.preprocessing.applied_to(common)
    return Pipeline([*make_preprocessor(contract, steps, seed).steps, (ESTIMATOR, estimator)])


def make_preprocessor(contract: Contract, steps: Preprocessing, seed: int) -> Pipeline:
    """Make what turns encoded rows, float of shape (n_rows, n_features), into model input.

    Features that take the same steps go through them together, as one block of columns.
    """
    blocks: dict[str, list[int]] = {}
    for position, feature in enumerate(contract.features):
        block = feature.name if feature.name in steps.features else feature.kind
        gaps = "_with_gaps" if feature.missing and block == feature.kind else ""
        blocks.setdefault(block + gaps, []).append(position)
    transformers = [
        (block, _make_block([contract.features[i] for i in positions], steps, seed), positions)
        for block, positions in blocks.items()
    ]
    joint = [build(step, "preprocessing.joint", seed) for step in steps.joint]
    columns = ColumnTransformer(transformers, sparse_threshold=0)
    return Pipeline([("columns", columns), *((f"joint_{i}", step) for i, step in enumerate(joint))])


def _make_block(features: list[Feature], steps: Preprocessing, seed: int) -> Pipeline | str:
    """Chain the steps of features of one kind, which all permit gaps or all do not."""
    first = features[0]
    own = first.name in steps.features
    where = f"preprocessing.features.{first.name}" if own else f"preprocessing.{first.kind}"
    chain = steps.features[first.name] if own else getattr(steps, first.kind)
    built = [build(step, where, seed) for step in chain]
    if first.missing:
        imputer = steps.impute.of(first.kind)
        built.insert(0, build(imputer, f"preprocessing.impute.{first.kind}", seed))
    for step in built:
        if first.kind != "numeric" and step.get_params().get("categories") == "auto":
            # the contract's categories, so that one which training happens to lack still works
            n_categories = [len(feature.categories) for feature in features]
            step.set_params(categories=[np.arange(n, dtype=float) for n in n_categories])
    return make_pipeline(*built) if built else "passthrough"


def build(
    component: Component, where: str, seed: int, install: str = "requirements.txt"
) -> BaseEstimator:
    """Instantiate an importable class with its arguments, and the seed if it takes one.

    An argument that is itself {class, args} is built first, so that ensembles can be nested.
    """
    kind = _import_class(component.class_, where, install)
    try:
        args = {name: _build_nested(arg, where, seed) for name, arg in component.args.items()}
        estimator = kind(**args)
        if not hasattr(estimator, "get_params"):
            raise TypeError("it makes no estimator or transformer of scikit-learn's kind")
        if "random_state" not in args and "random_state" in _parameters(estimator):
            estimator.set_params(random_state=seed)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{where}.args are refused by {component.class_}: {error}") from error
    return estimator


def _parameters(estimator: BaseEstimator) -> set[str]:
    """Name what the estimator can be given: CatBoost shows it one way, XGBoost another."""
    return {*signature(type(estimator)).parameters, *estimator.get_params(deep=False)}


def _build_nested(arg: Any, where: str, seed: int) -> Any:
    if isinstance(arg, Mapping) and "class" in arg and set(arg) <= {"class", "args"}:
        return build(Component.model_validate(arg), where, seed)
    return arg


def _import_class(path: str, where: str, install: str) -> type:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and module.startswith(str(error.name)):
            raise ContractError(
                f"{where}.class is {path}, but there is no module {error.name}. Correct the name."
            ) from error
        raise ContractError(
            f"{where}.class is {path}, but {error.name} is not installed. "
            f"Install it with: uv pip install --requirement {install}"
        ) from error
    except AttributeError as error:
        raise ContractError(
            f"{where}.class is {path}, but {module} has no {name}. Correct the name."
        ) from error
