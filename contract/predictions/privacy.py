"""What of the features is stored: all, none, or hashes that show only which values are equal."""

import hmac
from collections.abc import Callable, Mapping
from typing import Any

from contract.errors import ContractError
from contract.features import Contract

HASHED = "hash:"  # how a stored hash begins
MIN_KEY = 16


class PrivacyError(ContractError):
    """The setting cannot be followed; the message is meant for whoever runs the server."""


class Privacy:
    """Hides features of one contract as PREDICTION_LOG_FEATURES says."""

    def __init__(self, policy: str, key: str, contract: Contract):
        """Take on, off, hash, or names of features parted by blanks or commas.

        Raises PrivacyError for a name that is none of the contract, and hashes without a key.
        """
        names = [feature.name for feature in contract.features]
        words = policy.replace(",", " ").split()
        self.stores_none = words == ["off"]
        all_or_none = {"on": [], "off": [], "hash": names}
        self.hashed = frozenset(all_or_none.get(policy, words))
        if unknown := sorted(self.hashed - {*names}) or ([] if words else ["name"]):
            raise PrivacyError(
                f"PREDICTION_LOG_FEATURES is {policy!r}, expected on, off, hash or names of "
                f"features: the model has no {', '.join(unknown)}, only {', '.join(names)}."
            )
        if self.hashed and len(key) < MIN_KEY:
            raise PrivacyError(
                f"PREDICTION_LOG_KEY has {len(key)} characters, expected {MIN_KEY} or more: hashes "
                "without a secret are guessed from the few values that a feature has."
            )
        self._key = key.encode()

    def of_row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give what may be stored of a checked row."""
        if self.stores_none:
            return {}
        if not self.hashed:
            return row
        return {
            name: self.hasher(name)(value) if name in self.hashed else value
            for name, value in row.items()
        }

    def hasher(self, name: str) -> Callable[[Any], str | None]:
        """Give what hashes values of one feature; equal values are equal hashes, a gap stays."""

        def hashed(value: float | str | None) -> str | None:
            if value is None:
                return None
            text = value if isinstance(value, str) else repr(float(value))
            digest = hmac.digest(self._key, f"{name}={text}".encode(), "sha256")
            return HASHED + digest.hex()[:16]

        return hashed
