"""The worker dies at every point between send, ack and commit, again and again on one topic, and then does the rest."""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import orjson
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import ConsumerRecord

from tests.support.commit_sampler import sampling
from tests.support.crash_worker import DIED, POINTS, CrashingWorkers
from tests.support.deployment import DEFAULT, SCHEMA, wait_for
from tests.support.embedded import EmbeddedKafka
from tests.support.stand import TASK, Broker, Simulate, Stand, tickets
from tests.support.topics import New
from topics.spec import output_names
from workers.audit import Sample, named_source
from workers.audit.commits import claimed
from workers.demo.processes import SimulatedModel

LIFE_S = 90.0
FED_AGAIN_S = 2.0
PARTITIONS, KEYS, A_LIFE = 4, 12, 30
"""Records are keyed by far fewer keys than there are records, so that each waits for another; some come per life."""
SLOW_TAIL, SLOW = "heavy:0.005:0.25:0.1", "heavy:0.1:0.8:0.1"
LATENCY = {"confirmation": SLOW_TAIL, "outputs": SLOW_TAIL, "stop": SLOW, "rebalance": SLOW}
"""Slower where a life is longer, so that records are in flight at its end."""
PRODUCE, HEARTBEAT = 0, 12
POLICY_VIOLATION, REBALANCE_IN_PROGRESS = 44, 27

NO_ANSWER = SCHEMA | {"properties": SCHEMA["properties"] | {"summary": {"type": "string", "pattern": "^no answer$"}}}
"""Refuses what the simulated model says: each record goes down the ladder, to a person."""
REVIEWED = {"ladder": [{"review": {"max_per_hour": 3_600_000}}, {"default": DEFAULT}]}

IN_FLIGHT, SLOTS = 64, 16
SESSION_S, LONG_SESSION_S = 1.2, 4.0
"""The embedded broker lets a worker join after a session, less a second. Where all is to be committed it must not lose
its place, though the machine may be busy."""
REVOKE_WAIT_S, DRAIN_S = 30.0, 30.0
"""Bounds that no life meets: what is busy ends sooner."""
NO_DRAIN_S = 1.0
"""Where nobody stops: a JoinGroup that the embedded broker has lost is given up so much later (`clients.consumer`)."""
GROUPS: dict[str, dict[str, int]] = {
    "record": {"entered": 25, "taken": 4, "decided": 10, "gathered": 10, "send": 4, "enqueued": 4},
    "confirmation": {"produce_sent": 5, "produced": 5, "confirmed": 4, "told": 4, "sent": 10, "acked": 10, "left": 10},
    "outputs": {"copied": 10, "half_erased": 1, "fell_back": 10, "buried": 1},
    "commit": {"commit": 3, "commit_sent": 3, "committed": 3, "commit_noted": 3},
    "producer": {"spent": 1, "alone": 1, "alone_enqueued": 1, "alone_sent": 1, "reopening": 2, "reopened": 2},
    "rebalance": {"revoke_committed": 1}
    | dict.fromkeys(["revoking", "settled", "revoked", "assigned", "loaded", "begun"], 2),
    "stop": {"terminated": 1, "drained": 1, "last_committed": 1, "producer_closed": 1, "left_group": 1},
}
"""The points, and which time there is the worker's last. What leads there is the same within a group.

Joining a group begins with a revocation of nothing, and a producer is opened at the start: hence the second time.
"""
CHAINS = (("record", "confirmation"), ("outputs",), ("commit", "stop"), ("producer", "rebalance"))
"""Lives of one worker after another on one topic: each ends at its point, and the next goes on from there."""

COMMITTED_ALL = ("revoke_committed", "revoked", "last_committed", "producer_closed", "left_group")
"""Points at which all that was produced is committed as well: the next life repeats nothing."""
FED = ("record", "confirmation", "commit")
"""Groups with points that are about batches or commits. How many records each has is chance: more come to the end."""


def test_every_point_is_in_a_chain() -> None:
    """A point that no life ends at would be one that is not tried."""
    assert sorted(group for chain in CHAINS for group in chain) == sorted(GROUPS)
    assert sorted(point for group in GROUPS.values() for point in group) == sorted(POINTS)


@pytest.fixture(scope="module")
def crashing() -> Iterator[CrashingWorkers]:
    """Workers that die where they are told to."""
    with CrashingWorkers() as workers:
        yield workers


@pytest.mark.timeout(600)  # a dozen lives, each a second or two where the machine has time for it
@pytest.mark.fault("O9", "O11")
@pytest.mark.parametrize("chain", CHAINS, ids="-".join)
async def test_a_death_at_any_point_loses_nothing_and_repeats_only_what_was_not_committed(
    quick: Stand, simulate: Simulate, crashing: CrashingWorkers, chain: tuple[str, ...]
) -> None:
    """I1 to I3, I5: deaths are seen in the outputs only by repetitions of what no commit had called finished."""
    topic, model = await quick.create(partitions=PARTITIONS), simulate(latency=LATENCY[chain[-1]], wrap_ratio=0)
    reviewed = "outputs" in chain
    tasks = {TASK: {"input": topic, "max_in_flight": IN_FLIGHT, **(REVIEWED if reviewed else {})}}
    files = {"schema.json": orjson.dumps(NO_ANSWER).decode()} if reviewed else {}
    waits = {"revoke_wait_s": REVOKE_WAIT_S, "drain_s": DRAIN_S if "stop" in chain else NO_DRAIN_S}
    more = {"files": files, "model": {"max_in_flight": SLOTS}, "worker": waits}
    lives = [(group, point, after) for group in chain for point, after in GROUPS[group].items()]
    log, inputs = quick.folder / "crashing.log", 0
    async with sampling(quick.servers, quick.group, topic, TASK) as sampler:
        for life, (group, point, after) in enumerate(lives):
            found = found_by(life, group)
            await quick.put(topic, found)
            provoke(quick.broker, group)
            asked = model.counts()["requests"]
            config = quick.configuration(tasks, model.url, kafka=kafka_until(point), **more)
            crashing.begin(config, log, point, after)
            if group == "stop":
                await asyncio.to_thread(wait_for, partial(calls_since, model, asked), LIFE_S)
                crashing.signal(signal.SIGTERM)
            dying = asyncio.create_task(asyncio.to_thread(crashing.exit_code, LIFE_S))
            inputs += len(found) + (await fed_until(dying, quick, topic) if group in FED else 0)
            code = await dying
            assert code == DIED, f"never at {point} ({code}):\n{log.read_text()[-3_000:]}"
            assert await sampler.now(point)
            await give_up_its_place(quick, last_member(log))
        with quick.worker(tasks, model.url, kafka=kafka_until(), **more) as worker:
            await asyncio.to_thread(wait_for, lambda: worker.lag() == 0, LIFE_S, lambda: f"lag {worker.lag()}")
            assert (await asyncio.to_thread(worker.terminate))[0] == 0
    verdict = await quick.verdict(topic, samples=sampler.samples, settled=True)
    assert not verdict.broken(crashed=True)
    assert verdict.inputs == inputs
    repeats = await repeated_after(quick, topic, sampler.samples)
    assert not {point: repeats[point] for point in COMMITTED_ALL if repeats[point]}, "all of it was committed"


def kafka_until(point: str = "") -> dict[str, float]:
    """Return the settings of a life that ends there."""
    return {"session_timeout_s": LONG_SESSION_S if point in COMMITTED_ALL else SESSION_S, "commit_interval_s": 0.05}


async def fed_until(dying: asyncio.Task[int], stand: Stand, topic: str) -> int:
    """Write tickets every other second until the life has ended; return how many."""
    written = 0
    while not (await asyncio.wait({dying}, timeout=FED_AGAIN_S))[0]:
        await stand.put(topic, tickets(A_LIFE, keys=KEYS))
        written += A_LIFE
    return written


async def give_up_its_place(stand: Stand, member: str) -> None:
    """Say to the group that the dead member has left: else the next one waits until its session ends."""
    client = AIOKafkaClient(bootstrap_servers=stand.servers)
    await client.bootstrap()
    try:
        await client.send(client.get_random_node(), LeaveGroupRequest(stand.group, member))
    finally:
        await client.close()


def last_member(log: Path) -> str:
    """Return the name that the group gave to the last worker that joined."""
    return re.findall(r"with member_id ([^\" ]+)", log.read_text())[-1]


def calls_since(model: SimulatedModel, asked: int) -> bool:
    """Return whether the model has been asked for more than the worker can have in its slots."""
    return model.counts()["requests"] > asked + SLOTS


def found_by(life: int, group: str) -> list[New]:
    """Return what a life finds: tickets, and one record of each kind that takes another way.

    A keyless tombstone goes alone, and would take the refusal that is meant for a batch.
    """
    odd = [
        New(key=b"k1", value=b"no JSON"),
        New(key=b"k2", value=None),
        *([New(value=None, partition=2)] if group != "producer" else []),
        New(value=b'{"text": "no key"}', partition=3),
    ]
    return [*odd, *tickets(A_LIFE, keys=KEYS, start=life * A_LIFE)]


def provoke(broker: Broker, group: str) -> None:
    """Let happen what the points of this group are about."""
    assert isinstance(broker, EmbeddedKafka)
    if group == "producer":
        broker.push_errors(PRODUCE, [POLICY_VIOLATION])
    if group == "rebalance":
        broker.push_errors(HEARTBEAT, [REBALANCE_IN_PROGRESS])


async def repeated_after(stand: Stand, topic: str, samples: list[Sample]) -> Counter[str]:
    """Return how many outputs were written again after the death at each point.

    Of what a commit called finished when a life began, that life and all later ones write nothing. What is written last
    under a key is its newest record, so that a compacted topic ends up right.
    """
    deaths = [sample for sample in samples if sample.label in POINTS]
    finished = [finished_at(topic, sample) for sample in deaths]
    seen: set[tuple[str, str]] = set()
    again: Counter[str] = Counter()
    for kind in output_names(topic, TASK):
        written = await stand.read(topic, kind)
        last = {record.key: offset_of(record) for record in written}
        newest = {key: max(offset_of(record) for record in written if record.key == key) for key in last if key}
        assert newest == {key: offset for key, offset in last.items() if key}
        for record in written:
            before = [n for n, at in enumerate(deaths) if at.ends[kind, record.partition] <= record.offset]
            repeats = (kind, named_source(record)) in seen
            seen.add((kind, named_source(record)))
            if before:
                death = before[-1]
                assert named_source(record) not in finished[death], f"done again after {deaths[death].label}"
                again[deaths[death].label] += repeats
    return again


def offset_of(record: ConsumerRecord) -> int:
    """Return the offset of the input record that it came from; all records of a key come from one partition."""
    return int(named_source(record).rsplit("/", 1)[1])


def finished_at(topic: str, sample: Sample) -> set[str]:
    """Return the sources that the group's commits called finished then."""
    found = set()
    for partition, commit in sample.committed.items():
        below, past = claimed(commit, topic, partition, None)
        found |= {f"{topic}/{partition}/{offset}" for offset in {*range(below), *past}}
    return found
