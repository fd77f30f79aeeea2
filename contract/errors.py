"""The one error of this room."""


class ContractError(ValueError):
    """Data, params or an artifact break the contract; the message is meant for the user."""
