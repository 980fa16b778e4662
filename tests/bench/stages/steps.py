"""The steps of a record, each measured alone: CPU seconds of this process for all records of the bed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from tests.bench.matrix.workloads import PARTITIONS
from tests.bench.stages.bed import MODEL, Bed, ReadySink, clock
from topics import enriched
from workers import metrics
from workers.llm.admission import Admission
from workers.llm.breaker import Breaker
from workers.llm.dialects import dialect_of
from workers.llm.endpoint import Endpoint
from workers.llm.lean import LeanTransport
from workers.llm.series import Series
from workers.llm.transport import Transport, target
from workers.records import Passage
from workers.stages.s1_decode import decode
from workers.stages.s2_prompt import build
from workers.stages.s4_parse import parse
from workers.stages.s5_route import provenance_of, route
from workers.stages.s6_ack import ack
from workers.stream.commit_metadata import encode, fingerprint

RECORDS_PER_COMMIT = 1_000
"""The default commit interval, 0.2 s, at 5,000 records/s. At lower rates a commit is shared by fewer records."""
DEADLINE_S = 20.0

TRANSPORTS: Mapping[str, type[LeanTransport | Transport]] = {"aiohttp": Transport, "lean": LeanTransport}

Measure = Callable[[Bed], Awaitable[float]]


async def intake(bed: Bed) -> float:
    """Into ledger, delivery and window."""
    lane = bed.lane()
    with clock() as took:
        bed.entered(lane)
    return took.cpu_s


async def path(bed: Bed) -> float:
    """From the lane to the ack, with a model and a sink that need no time."""
    lane = bed.lane(ready=True)
    deliveries = bed.entered(lane)
    with clock() as took:
        for first in range(0, len(deliveries), bed.slots):
            some = deliveries[first : first + bed.slots]
            lane.start(some)
            while lane.window.count > len(deliveries) - first - len(some):  # noqa: ASYNC110 - one turn of the loop
                await asyncio.sleep(0)
    return took.cpu_s


async def s1_decode(bed: Bed) -> float:
    """Bytes to value."""
    records = bed.records
    with clock() as took:
        for record in records:
            decode(record, bed.task)
    return took.cpu_s


async def s2_prompt(bed: Bed) -> float:
    """Value to request body."""
    requests = [decode(record, bed.task) for record in bed.records]
    with clock() as took:
        for request in requests:
            build(request, bed.task)
    return took.cpu_s


async def admission(bed: Bed) -> float:
    """Slots, cool-downs, breaker: taken and settled."""
    settings = bed.settings.models[MODEL]
    one = Endpoint(0, "http://127.0.0.1", bed.slots, Breaker(settings.breaker, lambda *_: None))
    line = Admission([one])
    with clock() as took:
        for _ in bed.fetched:
            grant = line.take()
            assert grant is not None
            line.settle(grant, None)
            line.release(grant)
    line.close()
    return took.cpu_s


async def call(bed: Bed) -> float:
    """The whole client on the stub: admission, attempts, POST, envelope, its metrics."""
    client = bed.client
    prompts = bed.prompts

    async def slot(number: int) -> None:
        for prompt in prompts[number :: bed.slots]:
            await client.complete(prompt, Passage(DEADLINE_S), wait_s=0.0)

    await asyncio.gather(*map(slot, range(bed.slots)))  # connects
    with clock() as took:
        await asyncio.gather(*map(slot, range(bed.slots)))
    return took.cpu_s


async def _posts(bed: Bed, kind: type[LeanTransport | Transport]) -> float:
    settings = bed.settings.models[MODEL]
    transport = kind(settings)
    to = target(str(settings.all_endpoints()[0].url), dialect_of(settings).path)
    bodies = [prompt.body for prompt in bed.prompts]

    async def slot(number: int) -> None:
        for body in bodies[number :: bed.slots]:
            await transport.post(to, body, settings.timeout_s)

    await transport.start()
    try:
        await asyncio.gather(*map(slot, range(bed.slots)))
        with clock() as took:
            await asyncio.gather(*map(slot, range(bed.slots)))
    finally:
        await transport.close()
    return took.cpu_s


async def post(bed: Bed) -> float:
    """One POST with the configured `http_client`, sockets and event loop included."""
    return await _posts(bed, TRANSPORTS[bed.settings.models[MODEL].http_client])


async def post_other(bed: Bed) -> float:
    """The same with the other one."""
    return await _posts(bed, TRANSPORTS[other_client(bed.settings.models[MODEL].http_client)])


def other_client(name: str) -> str:
    """Return the HTTP client that is not configured."""
    return next(each for each in TRANSPORTS if each != name)


async def envelope(bed: Bed) -> float:
    """The body of the answer to what the model said."""
    dialect = dialect_of(bed.settings.models[MODEL])
    with clock() as took:
        for _ in bed.fetched:
            dialect.read(bed.answer)
    return took.cpu_s


async def s4_parse(bed: Bed) -> float:
    """What the model said to a checked enrichment."""
    replies = bed.replies
    with clock() as took:
        for reply in replies:
            parse(reply, bed.task)
    return took.cpu_s


async def schema(bed: Bed) -> float:
    """Of s4_parse the answer schema alone."""
    check = bed.task.check
    assert check is not None
    values = [outcome.enrichment for outcome in bed.outcomes]
    with clock() as took:
        for value in values:
            check(value)
    return took.cpu_s


async def s5_route(bed: Bed) -> float:
    """Outcome to outgoing records."""
    pairs = list(zip(bed.records, bed.outcomes, strict=True))
    with clock() as took:
        for record, outcome in pairs:
            route(record, outcome, bed.task, bed.partitions)
    return took.cpu_s


async def provenance_headers(bed: Bed) -> float:
    """Of s5_route the provenance and its headers alone."""
    pairs = list(zip(bed.records, bed.outcomes, strict=True))
    with clock() as took:
        for record, outcome in pairs:
            enriched.headers(provenance_of(outcome, bed.task, record.source, record.timestamp_ms / 1000))
    return took.cpu_s


async def s6_ack(bed: Bed) -> float:
    """The ack and the ledger, without the send."""
    outgoings = [route(*each, bed.task, bed.partitions) for each in zip(bed.records, bed.outcomes, strict=True)]
    lane, sink = bed.lane(), ReadySink(bed.partitions)
    ready = list(zip(outgoings, bed.entered(lane), strict=True))
    with clock() as took:
        for some, delivery in ready:
            await ack(some, delivery, sink)
    return took.cpu_s


async def metrics_of_record(bed: Bed) -> float:
    """What a lane counts for each record: outcome, duration, age."""
    count = metrics.RECORDS.labels("bench", "enriched", "model", "").inc
    lasted_s, age_s = metrics.RECORD_S.labels("bench"), metrics.RECORD_AGE_S.labels("bench")
    with clock() as took:
        for _ in bed.fetched:
            count()
            lasted_s.observe(0.15)
            age_s.observe(0.3)
    return took.cpu_s


async def metrics_of_call(bed: Bed) -> float:
    """What the client counts for each call: outcome, duration, tokens both ways."""
    series = Series(MODEL)
    with clock() as took:
        for _ in bed.fetched:
            series.answered(bed.reply)
    return took.cpu_s


async def commit(bed: Bed) -> float:
    """Position and metadata of all partitions, for as many commits as these records have; half of a window finished."""
    lane = bed.lane()
    window = bed.entered(lane, 4 * bed.slots)
    for number, delivery in enumerate(window):
        if number // PARTITIONS % 2:
            delivery.ack()
    ledgers = {delivery.ledger for delivery in window}
    commits = 40
    with clock() as took:
        for _ in range(commits):
            for ledger in ledgers:
                mark = fingerprint("cluster", ledger.topic, ledger.partition)
                encode(ledger.position, ledger.finished_past(), mark)
    return took.cpu_s / commits * len(bed.fetched) / RECORDS_PER_COMMIT


STEPS: Mapping[str, Measure] = {
    "intake": intake,
    "path": path,
    "s1_decode": s1_decode,
    "s2_prompt": s2_prompt,
    "admission": admission,
    "call": call,
    "post": post,
    "post_other": post_other,
    "envelope": envelope,
    "s4_parse": s4_parse,
    "schema": schema,
    "s5_route": s5_route,
    "provenance": provenance_headers,
    "s6_ack": s6_ack,
    "metrics_of_record": metrics_of_record,
    "metrics_of_call": metrics_of_call,
    "commit": commit,
}
"""Without a broker."""
