"""The values that travel between the stages, in the order in which they appear.

Plain dataclasses, not frozen: each is built once per record on the hot path, and frozen ones cost three times as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from workers.errors import BadAnswer

OLDEST_TIMESTAMP_MS = 946_684_800_000
"""2000-01-01, before Kafka: an older one is a broken clock, and says nothing of a record's age."""


@dataclass(slots=True)
class Record:
    """What Kafka gave us, untouched. `timestamp_ms` is Kafka's own unit (-1: none), and goes back as it came."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @property
    def source(self) -> str:
        """`<topic>/<partition>/<offset>`: the identity by which a consumer drops duplicates."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(slots=True)
class Request:
    """A record and its decoded value: any JSON value, or a str when `input_format: text`."""

    record: Record
    value: Any


@dataclass(frozen=True, slots=True)
class Frame:
    """A request body with a hole for the user's text: everything else is encoded once.

    `lead` goes before the text into the same JSON string, for a server that takes no system text of its own.
    """

    head: bytes
    tail: bytes
    lead: str = ""

    def around(self, text: str) -> "Prompt":
        """Return the body with the user's text in its hole."""
        return Prompt(b"%b%b%b" % (self.head, orjson.dumps(self.lead + text), self.tail), text, self)

    def around_all(self, texts: Sequence[str]) -> "Prompt":
        """Return the body with an array in its hole, one prompt for each of several records."""
        hole = orjson.dumps([self.lead + text for text in texts])
        return Prompt(b"%b%b%b" % (self.head, hole, self.tail), records=len(texts))


@dataclass(slots=True)
class Cut:
    """A part of the record that was over its budget (`inputs`), and what was kept of it, the marks in it included.

    `counted`: how the tokens were: `estimate` or `tokenizer`.
    """

    field: str
    keep: str
    kept_tokens: int
    kept_chars: int
    of_chars: int
    counted: str


@dataclass(slots=True)
class Prompt:
    """One HTTP body, ready to be sent to the task's model.

    `text` is the user's text in it, and `frame` what is around that: for a second ask, and for a batch. `records`: for
    how many records it asks, each with a prompt of its own. `cut`: what of the record is not in it.
    """

    body: bytes
    text: str = ""
    frame: Frame | None = None
    records: int = 1
    cut: tuple[Cut, ...] = ()


REPETITION = "repetition"
"""A finish reason of our own: the server broke off an answer that went round in circles."""


@dataclass(slots=True)
class Reply:
    """What the model said, unchecked. `model` is what the server says it ran, `endpoint` the URL without userinfo.

    `repairs`: what it took to get an enrichment out of it (`fenced`, `embedded`, `thought`, `escaped`,
    `larger_budget`, `asked_again`).
    `passed_by`: the models of the task's ladder that should have answered before this one, and why they did not.
    `shared`: another record's call; `cached`: an answer kept from before. Their tokens are 0: sums are what was spent.
    `members`, of a prompt for several records: what each of them got, by position; the rest is of the whole call.
    `batch`: for how many records the call was that brought this answer, 0 for a call of its own.
    `cost_usd`: of all calls made for the record, None when the model that answered has no price.
    `cut`: what of the record the model did not see.
    """

    text: str
    model: str
    endpoint: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    latency_s: float
    attempts: int
    repairs: tuple[str, ...] = ()
    passed_by: tuple[tuple[str, str], ...] = ()
    shared: bool = False
    cached: bool = False
    members: "tuple[Reply | BadAnswer, ...]" = ()
    batch: int = 0
    cost_usd: float | None = None
    cut: tuple[Cut, ...] = ()


@dataclass(slots=True)
class Outgoing:
    """One record to be produced. `partition` None: by murmur2 of the key. `timestamp_ms` None: now.

    A header's value may be None: Kafka has null header values, and a dead letter keeps them.
    """

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int | None


class Spent(NamedTuple):
    """What the calls made for a record took; tokens and cost of those that were answered, whatever the answer was.

    Tokens are the server's, 0 where it counts none. `cost_usd` is None where no answered call had a price.
    """

    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None


NOTHING_SPENT = Spent()


@dataclass(slots=True)
class Passage:
    """One record's way through the worker: its clock, and whether a call or a send of its own is running.

    `ends_at_s` (monotonic) is set when the record first holds a model slot; waiting before that does not count.
    `stale_at_s` (monotonic) comes from `max_age_s` and does include all waiting. A revoke or a drain cancels a record
    that is not `busy` at once, and lets a busy one finish for a bounded time. `written` are the topics that have
    confirmed a part of its outcome: a part is not written again while the rest can be written nowhere. Tokens and
    `cost_usd` are as `spent` gives them. `deferrals`: how often the record has been in the retry topic. `unretried`: so
    many calls failed before the retry budget said no; the next one has to be paid for.
    """

    deadline_s: float
    stale_at_s: float | None = None
    ends_at_s: float | None = None
    attempts: int = 0
    busy: bool = False
    written: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    deferrals: int = 0
    unretried: int = 0

    def spent(self) -> Spent:
        """Return what its calls have taken so far."""
        return Spent(self.attempts, self.input_tokens, self.output_tokens, self.cost_usd)

    def begin(self, now_s: float) -> None:
        """Start the deadline, once."""
        if self.ends_at_s is None:
            self.ends_at_s = now_s + self.deadline_s

    def occupy(self) -> None:
        """Say that a call begins: from now on it is let finish."""
        self.busy = True

    def free(self) -> None:
        """Say that no call runs any more."""
        self.busy = False

    def restart(self, unretried: int = 0) -> None:
        """Forget the deadline: time spent under hold does not count."""
        self.ends_at_s = None
        self.unretried = unretried

    def left_s(self, now_s: float) -> float:
        """Seconds until the deadline, the whole of it while the record has held no slot."""
        return self.deadline_s if self.ends_at_s is None else self.ends_at_s - now_s
