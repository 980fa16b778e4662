"""What calls cost, and how much of it a task may use in a day."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workers.settings.types import Count, Strict

_Rate = Annotated[float, Field(ge=0)]


class Price(Strict):
    """What a model's tokens cost, in US dollars per million. Both 0: a model that costs nothing, and says so."""

    input_usd_per_1m_tokens: _Rate = Field(description="of the request", examples=[0.25])
    output_usd_per_1m_tokens: _Rate = Field(description="of the answer", examples=[2.0])

    @property
    def free(self) -> bool:
        """Whether no call can cost anything."""
        return not (self.input_usd_per_1m_tokens or self.output_usd_per_1m_tokens)

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return what a call of so many tokens costs."""
        return (input_tokens * self.input_usd_per_1m_tokens + output_tokens * self.output_usd_per_1m_tokens) / 1_000_000


class BudgetSettings(Strict):
    """What a task may use per day (UTC), over all its models. A replica has its partitions' share of each limit.

    Counted in memory: a restart, and a partition that comes from another replica, begin a new count. Records that are
    under way when a limit is reached go on: it is passed by at most `max_in_flight` calls of each replica. A call that
    failed is not counted: nobody says what it used.
    """

    tokens_per_day: Count | None = Field(
        default=None,
        description="request and answer together; where the server counts none, a third of their bytes",
        examples=[5_000_000],
    )
    usd_per_day: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="by the `price` of the models; one without a price is asked on", examples=[20.0]
    )
    when_spent: Literal["fallback", "hold", "stop"] = Field(
        default="fallback",
        description="the next rung answers; or records wait for the next day; or the task stops until a restart",
    )

    @model_validator(mode="after")
    def _some_limit(self) -> "BudgetSettings":
        if self.tokens_per_day is None and self.usd_per_day is None:
            raise ValueError("give `tokens_per_day`, `usd_per_day` or both")
        return self
