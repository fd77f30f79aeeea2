"""The libraries that a model rests on, whoever made its classes."""

from importlib.metadata import packages_distributions, version

from sklearn.base import BaseEstimator


def libraries_of(model: BaseEstimator) -> dict[str, str]:
    """Give each distribution that the parts of the model, nested ones too, are of: its version."""
    parts = [part for part in model.get_params().values() if hasattr(part, "get_params")]
    modules = {type(part).__module__.partition(".")[0] for part in [model, *parts]}
    distributions = packages_distributions()
    names = {distributions[module][0] for module in modules if module in distributions}
    return {name: version(name) for name in sorted(names)}
