"""Three records before and after: one that the model answered, one by the rules in the outage, one dead letter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from topics import deadletters, enriched
from topics.headers import TIER, as_text
from topics.spec import Kind
from workers.records import Record

SHOWN_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a record was, and what became of it, as text that a terminal may show."""

    what: str
    key: str
    before: str
    after: str


def samples(outputs: Mapping[Kind, Sequence[Record]]) -> list[Sample]:
    """Return one sample of each kind that there is."""
    wanted: list[tuple[Kind, Callable[[Record], bool], Callable[[Record], Sample]]] = [
        ("enriched", lambda record: bool(record.key and record.value), _answered),
        ("fallback", lambda record: bool(record.key) and as_text(record.headers).get(TIER) == "rules", _answered),
        ("dlq", lambda record: bool(record.value), _dead),
    ]
    return [
        show(record) for kind, fits, show in wanted if (record := next(filter(fits, outputs[kind]), None)) is not None
    ]


def _answered(record: Record) -> Sample:
    found = enriched.decode(record.value or b"")
    said = found.provenance
    by = "" if said is None else said.tier
    why = f"by the {by}: {said.reason}" if said and said.reason else f"by the {by}"
    return Sample(
        what=why, key=_text(record.key), before=_text(found.input), after=_text(orjson.dumps(found.enrichment))
    )


def _dead(record: Record) -> Sample:
    failure = deadletters.decode(record.value, record.headers).failure
    return Sample(
        what=f"dead letter: {failure.reason}",
        key=_text(record.key),
        before=_text(record.value),
        after=f"the same bytes, stage {failure.stage}: {failure.exception_message}",
    )


def _text(value: bytes | None) -> str:
    """Return bytes as text that cannot command the terminal."""
    return deadletters.scrubbed((value or b"")[:SHOWN_CHARS].decode("utf-8", "backslashreplace"))
