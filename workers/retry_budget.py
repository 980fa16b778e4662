"""A budget for calls beyond a record's first: at most a tenth of all, so that no storm can come of them."""

SHARE = 0.1
"""Of the first calls, as in gRPC's retry throttling (gRFC A6: tokenRatio 0.1)."""

RESERVE = 10.0
"""So many may be made before any share was earned, and no more is ever saved up (gRFC A6: maxTokens 10)."""


class RetryBudget:
    """Earned by first calls, spent by others."""

    def __init__(self) -> None:
        self.left = RESERVE

    def earn(self) -> None:
        """Note a first call."""
        if self.left < RESERVE:
            self.left = min(RESERVE, self.left + SHARE)

    def spend(self) -> bool:
        """Return whether one more call may be made, and take it from the budget."""
        if self.left < 1:
            return False
        self.left -= 1
        return True
