"""The rung that always gives the same answer."""

from typing import Any

from workers.errors import PenstockError
from workers.records import Request


class Default:
    """Answers every record with one fixed enrichment."""

    tier = "default"

    def __init__(self, enrichment: dict[str, Any] | str) -> None:
        self._enrichment = enrichment

    def answer(self, request: Request, error: PenstockError) -> Any:  # noqa: ARG002 - the port's shape
        """Return the enrichment (shared: not to be changed)."""
        return self._enrichment
