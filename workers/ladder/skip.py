"""The rung that passes the input on as it is."""

from typing import Any

from workers.errors import PenstockError
from workers.records import Request


class Skip:
    """Answers every record with no enrichment."""

    tier = "skip"

    def answer(self, request: Request, error: PenstockError) -> Any:  # noqa: ARG002 - the port's shape
        """Return None."""
        return None
