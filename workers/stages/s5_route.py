"""Stage 5: what is produced for an outcome, and where. Plain functions; every record passes here once."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Literal

from topics import deadletters, enriched, fallbacks, requests, retries, reviews
from topics.headers import Header, passed_on
from topics.provenance import Provenance, rfc3339
from topics.shapes import NotMergeable, Shape
from workers import clock
from workers.errors import BadAnswer, Internal, MergeRefused
from workers.log import scrub
from workers.outcome import Deferred, Enriched, Erased, Fallback, Outcome, Rejected
from workers.records import OLDEST_TIMESTAMP_MS, Outgoing, Record
from workers.task import Task

FUTURE_TIMESTAMP_MS = 3_540_000
"""Kafka 4 refuses a record more than an hour ahead of the broker's clock (`message.timestamp.after.max.ms`, KIP-937,
KIP-1030), and a refused record costs the producer; a minute is left for the difference between the clocks."""

MODEL_MAX_CHARS = 200
"""The server names itself; a long name is cut."""


def route(
    record: Record,
    outcome: Outcome,
    task: Task,
    partitions: Mapping[str, int],
    *,
    wall_s: Callable[[], float] = clock.wall_s,
) -> list[Outgoing]:
    """Return what has to be produced, in this order: a review copy comes before the fallback record it belongs to.

    `partitions` says how many partitions each topic has, inputs as well as outputs: where both have as many, a record
    keeps its partition. The value of an Enriched or a Fallback has passed s1_decode.

    Raises:
        MergeRefused: the task merges, and this input cannot be merged into.
        Internal: the enrichment is no JSON (a rule's Python callable, an answer nested past orjson's 254 levels).

    Never for Rejected, Deferred or Erased. None of them is retryable.
    """
    if isinstance(outcome, Rejected):
        return [_dead_letter(record, outcome, task, partitions)]
    if isinstance(outcome, Deferred):
        return [_retry(record, outcome, task, partitions)]
    lineage = requests.decode(record.headers) if record.headers else requests.FRESH
    source = lineage.origin or record.source
    now_s = wall_s()
    envelope = _Envelope(record, partitions, now_s, requests.encode(lineage))
    outputs = task.outputs[record.topic]
    if isinstance(outcome, Erased):
        ours = enriched.tombstone_headers(source=source, task=task.name)
        return [envelope.around(topic, None, ours) for topic in (outputs.enriched, outputs.fallback)]
    settings = task.settings
    shape = _shape(settings.shape, settings.merge_as, settings.input_format)
    value = record.value or b""
    provenance = provenance_of(outcome, task, source, now_s)
    try:
        if isinstance(outcome, Enriched):
            body = enriched.encode(value, outcome.enrichment, provenance, shape)
            return [envelope.around(outputs.enriched, body, enriched.headers(provenance))]
        body = fallbacks.encode(value, outcome.enrichment, provenance, shape)
    except NotMergeable as exc:
        raise MergeRefused(str(exc)) from exc
    except (TypeError, UnicodeDecodeError) as exc:  # orjson's JSONEncodeError is a TypeError
        raise Internal("the enrichment or the input cannot be written as JSON") from exc
    outgoings = [envelope.around(outputs.fallback, body, fallbacks.headers(provenance))]
    if outcome.tier == reviews.TIER:
        copy = reviews.encode(value, provenance, text=shape.text)
        outgoings.insert(0, envelope.around(outputs.review, copy, fallbacks.headers(provenance)))
    return outgoings


@lru_cache(maxsize=64)
def _shape(kind: Literal["wrap", "merge", "only"], merge_as: str, input_format: str) -> Shape:
    return Shape(kind=kind, merge_as=merge_as, text=input_format == "text")


def provenance_of(outcome: Enriched | Fallback, task: Task, source: str, now_s: float) -> Provenance:
    """Return what an output says of how it came to be; `now_s` is the moment it says (Unix time)."""
    if isinstance(outcome, Enriched):
        reply = outcome.reply
        return Provenance(
            source=source,
            task=task.name,
            tier=enriched.MODEL_TIER,
            model=reply.model[:MODEL_MAX_CHARS],
            endpoint=reply.endpoint,
            prompt_version=task.prompt_version,
            schema_version=task.schema_version,
            attempts=reply.attempts,
            latency_s=round(reply.latency_s, 6),
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            cost_usd=None if reply.cost_usd is None else round(reply.cost_usd, 9),
            repairs=reply.repairs,
            passed_by=reply.passed_by,
            cut=tuple(map(asdict, reply.cut)) if reply.cut else (),
            shared=reply.shared,
            cached=reply.cached,
            batch=reply.batch,
            produced_at=rfc3339(now_s),
        )
    error, spent = outcome.error, outcome.spent
    return Provenance(
        source=source,
        task=task.name,
        tier=outcome.tier,
        endpoint=error.endpoint,
        prompt_version=task.prompt_version,
        schema_version=task.schema_version,
        attempts=spent.attempts,
        input_tokens=spent.input_tokens or None,
        output_tokens=spent.output_tokens or None,
        cost_usd=None if spent.cost_usd is None else round(spent.cost_usd, 9),
        reason=error.reason,
        produced_at=rfc3339(now_s),
        raw_answer=_writable(error.raw) if isinstance(error, BadAnswer) and error.raw else None,
    )


def _writable(text: str) -> str:
    """Return what JSON can hold of it: orjson refuses lone surrogates."""
    return text.encode("utf-8", "replace").decode()


class _Envelope:
    """What all records produced for one input record share: key, timestamp and the headers that travel on."""

    __slots__ = ("partitions", "passing", "record", "timestamp_ms")

    def __init__(self, record: Record, partitions: Mapping[str, int], now_s: float, lineage: list[Header]) -> None:
        self.record = record
        self.partitions = partitions
        self.timestamp_ms = _timestamp_ms(record.timestamp_ms, now_s)
        self.passing = passed_on(record.headers) + lineage if record.headers else []

    def around(self, topic: str, value: bytes | None, ours: list[Header]) -> Outgoing:
        return Outgoing(
            topic=topic,
            partition=_partition(self.record, topic, self.partitions),
            key=self.record.key,
            value=value,
            headers=[*self.passing, *ours],
            timestamp_ms=self.timestamp_ms,
        )


def _timestamp_ms(timestamp_ms: int, now_s: float) -> int | None:
    """Return the input's timestamp, None where retention would delete the output at once or no broker would take it."""
    credible = OLDEST_TIMESTAMP_MS <= timestamp_ms <= now_s * 1000 + FUTURE_TIMESTAMP_MS
    return timestamp_ms if credible else None


def _partition(record: Record, topic: str, partitions: Mapping[str, int]) -> int | None:
    """Return the input's partition when both topics have as many, else None: by key, as any producer would.

    A partition that the input has got since `partitions` was read does not exist on the output: by key as well.
    """
    count = partitions.get(topic)
    if count is None:
        return None
    if count == partitions.get(record.topic) and record.partition < count:
        return record.partition
    return record.partition % count if record.key is None else None


def _retry(record: Record, outcome: Deferred, task: Task, partitions: Mapping[str, int]) -> Outgoing:
    """Return the record for the retry topic: now is its time there, so that it is due in the order of offsets."""
    topic = task.outputs[record.topic].retry
    if topic is None:
        raise Internal("a deferred record, and no retry topic")
    retry = retries.Retry(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        deferrals=outcome.deferrals,
    )
    source = requests.decode(record.headers).origin or record.source
    return Outgoing(
        topic=topic,
        partition=_partition(record, topic, partitions),
        key=record.key,
        value=record.value,
        headers=retries.headers(record.headers, retry, source=source, task=task.name, reason=outcome.error.reason),
        timestamp_ms=None,
    )


def _dead_letter(record: Record, outcome: Rejected, task: Task, partitions: Mapping[str, int]) -> Outgoing:
    """Return the dead letter: now is its time, and it stays on its partition number as far as that exists."""
    error = outcome.error
    source = requests.decode(record.headers).origin or record.source
    topic = task.outputs[record.topic].dlq
    count = partitions.get(topic)
    failure = deadletters.Failure(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        stage=error.stage,
        reason=error.reason,
        exception_class=f"{type(error).__module__}.{type(error).__qualname__}",
        exception_message=scrub(str(error)),
        attempts=outcome.attempts,
        endpoint=error.endpoint,
    )
    return Outgoing(
        topic=topic,
        partition=None if count is None else record.partition % count,
        key=deadletters.stub_key(record.key) if outcome.stub else record.key,
        value=deadletters.encode_stub(record.value, source=source) if outcome.stub else record.value,
        headers=deadletters.headers(record.headers, failure, source=source, task=task.name, stub=outcome.stub),
        timestamp_ms=None,
    )
