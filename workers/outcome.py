"""What became of a record: a closed set. A record ends in exactly one of these, and only `Deferred` is no end."""

from dataclasses import dataclass
from typing import Any

from workers.errors import NoAnswer, PenstockError
from workers.records import NOTHING_SPENT, Reply, Spent


@dataclass(slots=True)
class Enriched:
    """The model answered and the answer passed its check. To the enriched topic."""

    enrichment: Any
    reply: Reply


@dataclass(slots=True)
class Fallback:
    """A lower rung answered. To the fallback topic; tier `review` also puts a copy on the review topic.

    `enrichment` is None for the tiers `review` and `skip`. `rung` is the index in the task's ladder, so that the next
    one can take over when a review copy cannot be written. `error` says why the model did not answer, `spent` what it
    took to find that out.
    """

    tier: str
    enrichment: Any
    error: PenstockError
    rung: int
    spent: Spent = NOTHING_SPENT


@dataclass(slots=True)
class Rejected:
    """No request could be built from it, the ladder is exhausted, or its output was refused. To the dead-letter topic.

    `stub`: the record itself does not fit the dead-letter topic; its sha256, size and coordinates go instead.
    `allowed`: the task's guard let it pass; a record draws on the budget once, however often it is tried.
    """

    error: PenstockError
    stub: bool = False
    attempts: int = 0
    allowed: bool = False


@dataclass(slots=True)
class Erased:
    """A tombstone: forwarded as a tombstone to enriched and fallback, never to a model."""


@dataclass(slots=True)
class Deferred:
    """The model was away: to the task's retry topic, from where the record comes back after `retry_delay_s`.

    `deferrals` counts this one as well. `error` says why the model did not answer, `spent` what its calls took in this
    pass; both are for the ladder, should the retry topic not take the record.
    """

    error: NoAnswer
    deferrals: int
    spent: Spent = NOTHING_SPENT


Outcome = Enriched | Fallback | Rejected | Erased | Deferred
