"""The verdict: which invariants are broken, by how many records, and which those are."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

NAMED_AT_MOST = 3
"""A sentence about many records names so many of them."""

WHAT: Mapping[str, str] = {
    "lost": "have no outcome",
    "repeated": "have more than one outcome",
    "in_two_kinds": "have outcomes of two kinds",
    "early": "were committed before their outcome was written",
    "uncommitted": "end past the commit, though nothing is left to do",
    "out_of_order": "overtook an older one of their key",
    "key_changed": "have another key in the output",
    "key_moved": "are on another partition than their key's earlier ones",
    "altered": "are not in the output as they were in the input",
    "invalid": "have an output that cannot be read or breaks the answer schema",
    "leaked": "have a secret in the output",
    "unknown": "in the outputs come from no input record",
    "forged": "say two different things of where they come from",
    "misfiled": "are in a topic where their outcome does not belong",
}
"""Every fault that a verdict tells: the name of its list, and how a sentence about it goes on."""

ALLOWED_AFTER_A_CRASH = ("repeated", "in_two_kinds")
"""At least once: what was not committed is done again, and the model may answer otherwise the second time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One way in which records ended. `tier` and `reason` are empty where they do not apply."""

    outcome: str
    tier: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """One input partition in numbers: `records` are `finished`, `waiting` or lost.

    `past_commit` of the finished ones would be done again if every worker died now. `commit` is None without one.
    """

    records: int = 0
    finished: int = 0
    waiting: int = 0
    past_commit: int = 0
    commit: int | None = None


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was found. Each list holds sources (`<topic>/<partition>/<offset>`); `WHAT` says what each is about.

    `repeated` counts a record's outcomes beyond the first. `uncommitted` names partitions. An output that names no
    input stands in `unknown` by its own place. `by_kind` counts records by the topic in which they ended, `ends` in
    detail. `unjudged` says what could not be told, and of how many records.
    """

    inputs: int = 0
    partitions: dict[int, Tally] = field(default_factory=dict)
    by_kind: Counter[str] = field(default_factory=Counter)
    ends: Counter[End] = field(default_factory=Counter)
    review_copies: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: Counter[str] = field(default_factory=Counter)
    in_two_kinds: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    first_early: str = ""
    """The sample that showed the first of `early`."""
    uncommitted: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    key_changed: list[str] = field(default_factory=list)
    key_moved: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    misfiled: list[str] = field(default_factory=list)
    unjudged: Counter[str] = field(default_factory=Counter)

    @property
    def repeats(self) -> int:
        """How many outcomes there are beyond each record's first."""
        return self.repeated.total()

    def faults(self) -> dict[str, list[str]]:
        """Return each fault that was found, with what it was found on."""
        found: dict[str, list[str]] = {name: list(getattr(self, name)) for name in WHAT}
        return {name: wrong for name, wrong in found.items() if wrong}

    def broken(self, *, crashed: bool = False) -> list[str]:
        """Return one sentence for each thing that is wrong; empty when nothing is.

        `crashed`: a worker crashed, froze or lost its place in the group meanwhile, and may have done records twice.
        """
        allowed = ALLOWED_AFTER_A_CRASH if crashed else ()
        return [self.sentence(name) for name in self.faults() if name not in allowed]

    def sentence(self, name: str) -> str:
        """Return one sentence about a fault that was found, by its name in `WHAT`."""
        wrong = self.faults()[name]
        subject = "partitions" if name == "uncommitted" else "records"
        more = f" (first seen in {self.first_early})" if name == "early" else ""
        return f"{len(wrong)} {subject} {WHAT[name]}: {some(wrong)}{more}"


def some(sources: Iterable[str]) -> str:
    """Return the first three, and how many more there are."""
    named = list(sources)
    more = len(named) - NAMED_AT_MOST
    return ", ".join(named[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
