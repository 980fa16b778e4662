"""Reading what the oracle judges, in an order in which a worker that runs meanwhile cannot look wrong.

1. The group's commits, of the input and of the retry topic. 2. Where the outputs end, the retry topic too: all that
was committed by then had been confirmed before. 3. Where the input ends: no output names a record past that. 4. The
records. 5. Where input and outputs begin, after they were read: what retention took in between is known to be gone.

What the worker does meanwhile is past the commit, or is not seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from topics.spec import KINDS, Kind
from workers.audit.commits import Commit, Sample, claimed
from workers.audit.oracle import Oracle
from workers.audit.rules import Rules, Span, Topics
from workers.audit.verdict import Verdict
from workers.records import Record
from workers.settings.model import Kafka
from workers.stream.readback import Reader, committed, reader

Progress = Callable[[str, int, int], None]
"""Told of a topic, how many offsets of it were passed, and how many there are."""

PROGRESS_EVERY = 1_000
ENDS_IN_THIS_ORDER: tuple[Kind, ...] = ("enriched", "fallback", "dlq", "review")
"""A review copy is written before the record it belongs to: its topic is asked last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An input topic with its outputs, as the cluster has them: those that are not there have no partitions.

    `retry`: the retry topic of a task that defers. `compacted` holds names of topics. `since`: where the group began,
    when somebody knows.
    """

    topic: str
    outputs: Mapping[Kind, str]
    partitions: Mapping[str, int]
    retry: str | None = None
    compacted: frozenset[str] = frozenset()
    since: Mapping[int, int] = field(default_factory=dict)


async def audit(
    kafka: Kafka, place: Place, rules: Rules, *, samples: Sequence[Sample] = (), progress: Progress | None = None
) -> Verdict:
    """Return the verdict over one input topic. Reads only; joins no group.

    Raises:
        Exit: 69 when no broker answers within `startup_timeout_s`, 78 when a right is missing.
    """
    count = place.partitions[place.topic]
    commit = await committed(kafka, place.topic, count)
    rules = replace(rules, cluster_id=commit.cluster_id)
    retries = place.partitions.get(place.retry or "", 0)
    retried = (await committed(kafka, place.retry, retries)).offsets if place.retry and retries else {}
    oracle = Oracle(place.topic, rules, samples=samples)
    async with reader(kafka) as of:
        there = {kind: place.partitions[name] for kind, name in place.outputs.items() if place.partitions.get(name)}
        output_ends = {
            kind: await of.ends(place.outputs[kind], there[kind]) for kind in ENDS_IN_THIS_ORDER if kind in there
        }
        retry_ends = await of.ends(place.retry, retries) if place.retry and retries else {}
        input_ends = await of.ends(place.topic, count)
        await _read(of, place.topic, input_ends, _since(place.since, oracle.add_input), progress)
        begins = await of.begins(place.topic, count)
        spans = {
            number: Span(begin=max(begins[number], place.since.get(number, 0)), end=end)
            for number, end in input_ends.items()
        }
        oracle.topics = await _seen(of, place, spans, there)
        for kind in KINDS:
            if kind in there:
                await _read(of, place.outputs[kind], output_ends[kind], _as(oracle, kind), progress)
        if place.retry and retry_ends:
            waiting = _Waiting(place.retry, retried, commit.cluster_id, oracle)
            await _read(of, place.retry, retry_ends, waiting.take, progress)
        oracle.topics = await _seen(of, place, spans, there)
    return oracle.verdict(commit.offsets)


class _Waiting:
    """Tells the oracle of each record in the retry topic whether it is finished there, by the group's commit."""

    def __init__(self, topic: str, commits: Mapping[int, Commit], cluster_id: str, oracle: Oracle) -> None:
        self._topic, self._commits, self._cluster_id = topic, commits, cluster_id
        self._oracle = oracle
        self._finished: dict[int, tuple[int, set[int]]] = {}

    def take(self, record: Record) -> None:
        number = record.partition
        if number not in self._finished:
            self._finished[number] = claimed(self._commits.get(number), self._topic, number, self._cluster_id)
        below, past = self._finished[number]
        self._oracle.add_deferred(record, waits=record.offset >= below and record.offset not in past)


def _since(since: Mapping[int, int], take: Callable[[Record], None]) -> Callable[[Record], None]:
    def take_later(record: Record) -> None:
        if record.offset >= since.get(record.partition, 0):
            take(record)

    return take_later if since else take


def _as(oracle: Oracle, kind: Kind) -> Callable[[Record], None]:
    return lambda record: oracle.add_output(kind, record)


async def _seen(of: Reader, place: Place, spans: Mapping[int, Span], there: Mapping[Kind, int]) -> Topics:
    cut: set[tuple[Kind, int]] = set()
    for kind, count in there.items():
        begins = await of.begins(place.outputs[kind], count)
        cut |= {(kind, number) for number, begin in begins.items() if begin > 0}
    return Topics(
        spans=spans,
        cut=frozenset(cut),
        compacted=frozenset(kind for kind in KINDS if place.outputs[kind] in place.compacted),
        input_compacted=place.topic in place.compacted,
        output_partitions=there,
    )


async def _read(
    of: Reader, topic: str, ends: Mapping[int, int], take: Callable[[Record], None], progress: Progress | None
) -> None:
    if progress is None:
        await of.each(topic, ends, take)
        return
    begins = await of.begins(topic, len(ends))
    total = sum(ends[number] - begins[number] for number in ends)
    told = 0

    def counted(record: Record) -> None:
        nonlocal told
        told += 1
        if told % PROGRESS_EVERY == 0:
            progress(topic, told, total)
        take(record)

    await of.each(topic, ends, counted)
    progress(topic, total, total)
