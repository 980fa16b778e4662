"""What became of every input record, told from the topics alone: the worker is not asked."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from topics import deadletters, enriched
from topics.deadletters import REJECTED
from topics.enriched import ENRICHED, ERASED
from topics.fallbacks import FALLBACK
from topics.headers import OUTCOME, REASON, SOURCE, TIER, as_text
from topics.spec import Kind
from workers.records import Record

NAMED_AT_MOST = 3
"""A sentence about many records names so many of them."""

ENDS: Mapping[Kind, tuple[str, ...]] = {
    "enriched": (ENRICHED, ERASED),
    "fallback": (FALLBACK, ERASED),
    "dlq": (REJECTED,),
}
"""The topics in which a record ends, and with which outcomes. A review copy is a copy, and no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One way in which records ended. `tier` and `reason` are empty where they do not apply."""

    outcome: str
    tier: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Account:
    """The sum: how many records ended how, and the sources (`<topic>/<partition>/<offset>`) of those that did wrong."""

    inputs: int
    ends: Counter[End] = field(default_factory=Counter)
    review_copies: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    misfiled: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Return what is wrong, one sentence each; empty when every record has exactly one outcome."""
        faults = {
            "have no outcome": self.lost,
            "have more than one outcome": self.repeated,
            "in the outputs come from no input record": self.unknown,
            "are not in the output as they were in the input": self.altered,
            "are in a topic where their outcome does not belong": self.misfiled,
            "overtook an older one of their key": self.out_of_order,
        }
        return [f"{len(wrong)} records {what}: {_some(wrong)}" for what, wrong in faults.items() if wrong]


def account(inputs: Sequence[Record], outputs: Mapping[Kind, Sequence[Record]]) -> Account:
    """Compare an input topic with its output topics, all of them read to their ends.

    Every input record must be in exactly one of enriched, fallback and dlq, once; a tombstone on enriched and fallback,
    once each. A record of tier `review` must have one copy on the review topic.
    """
    came = {record.source: record for record in inputs}
    found = Account(inputs=len(came))
    seen: dict[str, list[Kind]] = {}
    for kind in ENDS:
        for record in outputs[kind]:
            source = as_text(record.headers).get(SOURCE, "")
            if source not in came:
                found.unknown.append(source or f"{record.source} (no source header)")
                continue
            seen.setdefault(source, []).append(kind)
            _check_one(kind, record, came[source], found)
        found.out_of_order += _out_of_order(outputs[kind], came)
    for source, record in came.items():
        _check_ends(source, record, seen.get(source, []), found)
    _check_reviews(outputs, found)
    return found


def _check_one(kind: Kind, record: Record, came: Record, found: Account) -> None:
    """Count one end and look whether it is what it claims to be."""
    said = as_text(record.headers)
    outcome = said.get(OUTCOME, "")
    if outcome not in ENDS[kind] or (outcome == ERASED) != (came.value is None):
        found.misfiled.append(came.source)
        return
    if kind == "fallback" and outcome == ERASED:
        return  # the same tombstone is on enriched, and counted there
    reason = said.get(REASON, "")
    if outcome == REJECTED:
        reason = deadletters.decode(record.value, record.headers).failure.reason
    found.ends[End(outcome=outcome, tier=said.get(TIER, ""), reason=reason)] += 1
    if record.key != came.key or _embedded(outcome, record) != came.value:
        found.altered.append(came.source)


def _embedded(outcome: str, record: Record) -> bytes | None:
    """Return the input's bytes as an output carries them."""
    if record.value is None or outcome == REJECTED:
        return record.value
    return enriched.decode(record.value).input  # enriched and fallback have one shape


def _check_ends(source: str, record: Record, kinds: list[Kind], found: Account) -> None:
    expected = ["enriched", "fallback"] if record.value is None else kinds[:1]
    if not kinds or set(expected) - set(kinds):
        found.lost.append(source)
    elif sorted(kinds) != expected:
        found.repeated.append(source)


def _check_reviews(outputs: Mapping[Kind, Sequence[Record]], found: Account) -> None:
    """Each flagged record has one copy for the person who is to look at it."""
    flagged = Counter(
        _sources(record for record in outputs["fallback"] if as_text(record.headers).get(TIER) == "review")
    )
    copies = Counter(_sources(outputs["review"]))
    found.review_copies = copies.total()
    found.lost += (flagged - copies).elements()
    found.repeated += (copies - flagged).elements()


def _sources(records: Iterable[Record]) -> Iterator[str]:
    return (as_text(record.headers).get(SOURCE, "") for record in records)


def _out_of_order(records: Sequence[Record], came: Mapping[str, Record]) -> Iterator[str]:
    """Yield the sources that stand behind a younger record of their key in one output topic."""
    last: dict[bytes, int] = {}
    for source, record in zip(_sources(records), records, strict=True):
        if record.key is None or source not in came:
            continue
        offset = came[source].offset
        if offset < last.get(record.key, -1):
            yield source
        last[record.key] = max(offset, last.get(record.key, -1))


def _some(sources: list[str]) -> str:
    more = len(sources) - NAMED_AT_MOST
    return ", ".join(sources[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
