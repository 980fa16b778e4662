"""Input records and what a worker would write for them, without a broker: what the oracle's tests break."""

from collections.abc import Sequence

from topics import deadletters, enriched, fallbacks, headers
from topics.deadletters import Failure
from topics.headers import Header
from topics.provenance import Provenance
from topics.spec import Kind
from workers.records import Record

TOPIC, TASK = "in", "t"
ANSWER = {"a": 1}
Outputs = dict[Kind, list[Record]]


def came(
    offset: int,
    value: bytes | None = b'{"text": "hello"}',
    key: bytes | None = b"anna",
    *,
    partition: int = 0,
    said: Sequence[Header] = (),
) -> Record:
    """An input record."""
    return Record(TOPIC, partition, offset, 1_700_000_000_000, key, value, list(said))


def out(kind: Kind, record: Record, said: list[Header], value: bytes | None) -> Record:
    """An output record of an input record; its offset is for whoever puts it in its topic."""
    return Record(f"{TOPIC}.{TASK}.{kind}", record.partition, 0, record.timestamp_ms, record.key, value, said)


def provenance(record: Record, tier: str, reason: str | None = None) -> Provenance:
    """How an answer came about, as far as the oracle looks at it."""
    return Provenance(
        source=record.source,
        task=TASK,
        tier=tier,
        reason=reason,
        prompt_version="p",
        schema_version="s",
        attempts=1,
        produced_at="2026-01-01T00:00:00.000Z",
    )


def answered(record: Record, enrichment: object = ANSWER) -> Record:
    """What the model's answer looks like."""
    how = provenance(record, "model")
    return out("enriched", record, enriched.headers(how), enriched.encode(record.value or b"", enrichment, how))


def fell_back(record: Record, tier: str, kind: Kind = "fallback") -> Record:
    """What a rung's answer, or a copy of it, looks like."""
    how = provenance(record, tier, "breaker_open")
    return out(kind, record, fallbacks.headers(how), fallbacks.encode(record.value or b"", None, how))


def dead(record: Record, *, stub: bool = False) -> Record:
    """What a dead letter looks like."""
    failure = Failure(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        stage="decode",
        reason="not_json",
        exception_class="NotJson",
        exception_message="no",
    )
    said = deadletters.headers(record.headers, failure, source=record.source, task=TASK, stub=stub)
    value = deadletters.encode_stub(record.value, source=record.source) if stub else record.value
    return out("dlq", record, said, value)


def erased(record: Record, kind: Kind) -> Record:
    """What a tombstone looks like."""
    return out(kind, record, enriched.tombstone_headers(source=record.source, task=TASK), None)


def placed(outputs: Outputs) -> Outputs:
    """Give each output the next offset of its partition, in the order of the lists."""
    for records in outputs.values():
        ends: dict[int, int] = {}
        for record in records:
            record.offset = ends.get(record.partition, 0)
            ends[record.partition] = record.offset + 1
    return outputs


def forged(source: str) -> Header:
    """A header that says an output comes from somewhere."""
    return (headers.SOURCE, source.encode())
