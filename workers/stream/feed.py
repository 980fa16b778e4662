"""Where the records of one input topic go."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from workers.stream.lane import Lane
from workers.stream.window import Delivery

Put = Callable[[list[Delivery]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Feed:
    """Where the records of one input topic go: its lane, and the channel in front of it."""

    lane: Lane
    put: Put
    depth: Callable[[], int]
    """Batches on the channel."""
    delay_s: float | None = None
    """Of a retry topic: how long after its timestamp a record is due."""
