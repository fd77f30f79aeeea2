"""What a comparison with a reference found, without the mathematics that found it."""

from dataclasses import dataclass

from contract.drift_limits import ACTIONS, Action, Measure


@dataclass(frozen=True)
class Finding:
    """One effect size beside its limits, for a column or a pair of columns.

    A limit in force is the greater of the one in params.yaml and what chance alone may reach with
    so many rows. The action is none where no limit is exceeded.
    """

    columns: tuple[str, ...]
    measure: Measure
    value: float
    limits: dict[Action, float]
    action: Action | None
    detail: str

    @property
    def limit(self) -> float | None:
        """The limit that the value exceeds; where it exceeds none, the first that it would."""
        passed = [limit for limit in self.limits.values() if abs(self.value) > limit]
        return max(passed) if passed else min(self.limits.values(), default=None)

    @property
    def subject(self) -> str:
        return " - ".join(self.columns)


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured, and what of it counts as drift."""

    n_reference_rows: int
    n_rows: int
    measured: tuple[Finding, ...]
    p_values: dict[str, dict[str, float]]  # by column, for information
    notes: tuple[str, ...]  # what could not be compared, in sentences

    def findings(self, *actions: Action) -> list[Finding]:
        """Give what exceeds a limit, the greatest excess first; all of it if no action is named."""
        told = [found for found in self.measured if found.action in (actions or ACTIONS)]
        return sorted(told, key=lambda found: -abs(found.value) / max(found.limit or 0, 1e-9))
