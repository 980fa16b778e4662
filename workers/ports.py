"""The seams: what the pipeline needs from the outside, and nothing more. Fakes in tests pass the same suites."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from workers.errors import PenstockError
from workers.records import Frame, Outgoing, Passage, Prompt, Record, Reply, Request

__all__ = ["DECLINED", "Ask", "Frame", "Model", "Permit", "Rung", "Sink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a task asks of a model, whatever the record: fixed when the task is compiled.

    `schema` is the JSON Schema that the server shall enforce, None for a text answer. `name` labels it (1-64 of
    `[a-zA-Z0-9_-]`).
    """

    name: str
    system: str
    schema: dict[str, Any] | None
    max_tokens: int
    temperature: float


class Model(Protocol):
    """A model server, or several that serve the same model."""

    name: str

    def frame(self, ask: Ask) -> Frame:
        """Return the body of a request for `ask` in the server's dialect."""

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return what the model says to `prompt`, trying again as the errors allow, inside the passage's deadline.

        Waits without limit for a slot and for a cool-down (429, 503), except that a passage that has begun waits no
        longer than its deadline. While no endpoint may be asked (breaker open, misconfigured) it waits at most
        `wait_s`: 0 returns at once, `math.inf` holds. A waiter is let in, oldest first, as the breaker's trial.

        Raises:
            Unavailable: after the last attempt (its class and `reason` say which); `BreakerOpen` or `Misconfigured`
                when `wait_s` passed without admission.
            Busy: 429 or 503 until the deadline.
            Declined: the server refuses this request; not retryable.
            BadAnswer: `AnswerEmpty`, `AnswerRefused`.
            Stale: `passage.stale_at_s` passed while waiting.
            DeadlineOver: no time left for another attempt.

        Cancellation frees the slot, is neutral for the breaker and closes the connection.
        """

    def answered_since(self, at_s: float) -> bool:
        """Return whether any call has succeeded since `at_s` (monotonic)."""

    def held_reason(self) -> str | None:
        """Return why a person must act before this model answers, None while there is no such reason."""

    def pace_per_s(self) -> float:
        """Return the last measured rate of successful calls; before any measurement slots / timeout_s."""


class Rung(Protocol):
    """One step of the ladder."""

    tier: str

    def answer(self, request: Request, error: PenstockError) -> Any:
        """Return the enrichment, or `DECLINED` when this rung has nothing to say to this record. Never waits."""


DECLINED = object()
"""A rung's answer when it has none: None is a valid enrichment (review, skip)."""


class Permit(Protocol):
    """The right to finish one delivery of a record. It belongs to the delivery: a redelivery has its own."""

    @property
    def record(self) -> Record:
        """What was delivered."""

    @property
    def passage(self) -> Passage:
        """Its way through the worker so far."""

    @property
    def gone(self) -> bool:
        """Whether the partition left: then nothing may be sent any more, the next owner does it."""

    def ack(self) -> None:
        """Say that the broker confirmed all that was produced for the record. Without effect when gone."""


class Sink(Protocol):
    """The way out. `partitions` says how many partitions each output topic has."""

    partitions: Mapping[str, int]

    async def send(self, outgoing: Outgoing) -> None:
        """Return when the broker has confirmed the record; until then it waits, however long.

        Raises:
            OutputTooLarge: it cannot fit its topic; nothing was sent.
            OutputRefused: the broker refused this record for good.

        Cancellation leaves the send unknown: it may still arrive.
        """
