"""What one output record says: of its outcome, of where it comes from, and of the input that it carries."""

from collections.abc import Sequence
from dataclasses import dataclass

from topics import deadletters, reviews, shapes
from topics.deadletters import ERRORS, REJECTED, STUB
from topics.headers import OUTCOME, REASON, SOURCE, TASK, TIER, as_text
from topics.provenance import Provenance
from topics.shapes import Shape
from topics.spec import Kind
from workers.audit.partition import Partition
from workers.audit.rules import Rules
from workers.audit.verdict import End
from workers.records import Record


@dataclass(slots=True)
class Contents:
    """One output taken apart. `body`: the input's bytes as far as it carries them (`carries`)."""

    outcome: str = ""
    end: End | None = None
    flagged: bool = False
    forged: bool = False
    invalid: bool = False
    older_schema: bool = False
    carries: bool = False
    body: bytes | None = None
    letter: deadletters.DeadLetter | None = None


def read(kind: Kind, record: Record, rules: Rules) -> Contents:
    """Take an output apart; one that cannot be is `invalid`. `rules.shape` is given."""
    said = as_text(record.headers)
    found = Contents(outcome=said.get(OUTCOME, ""))
    found.forged = sum(name == SOURCE for name, _ in record.headers) > 1
    try:
        if found.outcome == REJECTED:
            _read_letter(record, found)
        elif record.value is None:
            found.carries, found.body = True, None
            found.end = End(outcome=found.outcome, tier="", reason="")
        else:
            _read_answer(kind, record, rules, found)
    except (ValueError, TypeError, KeyError, AttributeError):  # AttributeError: members of another kind
        found.invalid = True
    if found.end is None and not found.invalid and kind != "review":
        found.end = End(outcome=found.outcome, tier=said.get(TIER, ""), reason=said.get(REASON, ""))
    found.flagged = kind == "fallback" and said.get(TIER) == reviews.TIER
    return found


def _read_letter(record: Record, found: Contents) -> None:
    letter = found.letter = deadletters.decode(record.value, record.headers)
    failure = letter.failure
    found.end = End(outcome=REJECTED, tier="", reason=failure.reason)
    twice = [name for name, _ in record.headers if name.startswith(ERRORS) or name in (TASK, OUTCOME)]
    found.forged |= len(twice) > len(set(twice)) or (letter.stub is not None and letter.stub.source != letter.source)


def _read_answer(kind: Kind, record: Record, rules: Rules, found: Contents) -> None:
    shape = rules.shape or shapes.WRAP
    if kind == "review":
        shape = Shape(text=shape.text)
    decoded = shapes.decode(record.value or b"", shape)
    found.carries, found.body = decoded.input is not None, decoded.input
    provenance = decoded.provenance
    found.forged |= provenance is not None and provenance.source != as_text(record.headers).get(SOURCE)
    if kind == "enriched" and rules.check is not None:
        found.older_schema = _is_older(provenance, rules.schema_version)
        found.invalid = not found.older_schema and rules.check(decoded.enrichment) is not None


def _is_older(provenance: Provenance | None, version: str) -> bool:
    """Return whether the answer was checked by another schema than today's; without provenance nobody knows."""
    return bool(version) and (provenance is None or provenance.schema_version != version)


def same(seen: Contents, partition: Partition, place: int) -> bool:
    """Return whether the output carries the input as it was, as far as it carries it."""
    letter = seen.letter
    if letter is None:
        return not seen.carries or partition.has_value(place, seen.body)
    if letter.stub is not None:
        return partition.has_stub(place, letter.stub) and partition.has_headers(place, letter.headers, stub=True)
    return partition.has_value(place, letter.value) and partition.has_headers(place, letter.headers, stub=False)


def is_long_key_of_stub(kind: Kind, record: Record) -> bool:
    """Return whether the output has no key because a stub has no room for a long one."""
    return kind == "dlq" and record.key is None and any(name == STUB for name, _ in record.headers)


def in_headers(record: Record, canaries: Sequence[bytes]) -> bool:
    """Return whether a header's name or value holds one of these."""
    return any(
        canary in (value or b"") or canary in name.encode("utf-8", "surrogatepass")
        for name, value in record.headers
        for canary in canaries
    )


def holds_canary(record: Record, canaries: Sequence[bytes]) -> bool:
    """Return whether any part of the record holds one of these."""
    bodies = (record.key or b"", record.value or b"")
    return any(canary in body for body in bodies for canary in canaries) or in_headers(record, canaries)
