"""Keys that everything hangs on: all records under one key, and a record that no model can answer."""

import asyncio

import pytest
from aiokafka import TopicPartition

from tests.support.fault_server import FaultServer, Step, answer, hang, status
from tests.support.llm_settings import client_for
from tests.support.memory import TOPIC, Fetched, Rig, until
from workers import metrics
from workers.llm import Client
from workers.ports import Ask
from workers.stream.lag import Lag

HOT, OTHERS = 300, 60
ATTEMPTS = 3
ASK = Ask(name="t", system="", schema=None, max_tokens=8, temperature=0.0)


def longest_chain() -> float:
    """What the gauge shows."""
    [line] = [line for line in metrics.render().decode().splitlines() if line.startswith("penstock_hot_key_chain_rec")]
    name, _, value = line.rpartition(" ")
    assert "hot" not in name.partition("{")[2], "a key as a label"
    return float(value)


@pytest.mark.fault("D16")
async def test_a_topic_of_one_key_is_one_chain_and_leaves_other_partitions_alone() -> None:
    """One call at a time for the key, in order, and a bounded chain that a gauge shows; the others all run at once."""
    async with Rig(task={"max_in_flight": 256}) as rig:
        rig.model.gate.clear()
        rig.write(0, range(HOT), key=b"hot")
        rig.consumer.write(TopicPartition(TOPIC, 1), *(Fetched(offset, b"k%d" % offset) for offset in range(OTHERS)))
        await rig.assign(0, 1)
        await until(lambda: len(rig.model.calls) == 1 + OTHERS)
        await until(lambda: rig.window.count >= OTHERS + rig.window.max_per_key)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert len(rig.model.calls) == 1 + OTHERS, "the key's second record did not wait for its first"
        Lag(rig.consumer, rig.assignment, rig.intake)._sample_lanes()
        assert rig.window.max_per_key <= longest_chain() <= 2 * rig.window.max_per_key
        rig.model.gate.set()
        await until(lambda: rig.ledger(0).position == HOT and rig.ledger(1).position == OTHERS)
        assert rig.offsets_done(0) == list(range(HOT))
        Lag(rig.consumer, rig.assignment, rig.intake)._sample_lanes()
        assert longest_chain() == 0


async def rig_over(client: Client) -> Rig:
    """Return a rig whose task asks a real client, which is started here; its ladder is empty."""
    await client.start()
    return Rig(compiled={"model": client, "frame": client.frame(ASK), "render": lambda **seen: str(seen["record"])})


@pytest.mark.fault("D17")
@pytest.mark.parametrize(
    ("poison", "timeout_s"),
    [(status(500), 5.0), (answer("x" * 5_000), 5.0), (hang(), 0.5)],
    ids=["500", "useless answer", "hang"],
)
async def test_a_record_that_always_fails_is_a_dead_letter_after_its_attempts(poison: Step, timeout_s: float) -> None:
    """The next record of its key goes on behind it, and the commit passes it: it never blocks its partition."""
    async with FaultServer() as server:

        async def by_record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
            step = poison if b"poison" in server.requests[-1].body else answer("fine")
            return await step(reader, writer)

        server.default = by_record
        times = {"timeout_s": timeout_s, "connect_timeout_s": 5.0}
        client = client_for(server.url, slots=1, max_attempts=ATTEMPTS, **times, breaker={"connect_failures": 99})
        async with await rig_over(client) as rig:
            values = [b'"one"', b'"poison"', b'"three"', b'"four"']
            rig.consumer.write(
                TopicPartition(TOPIC, 0), *(Fetched(offset, b"k", value) for offset, value in enumerate(values))
            )
            await rig.assign(0)
            await until(lambda: rig.ledger(0).position == len(values))
            assert rig.offsets_done() == [0, 1, 2, 3]
            kinds = [outgoing.topic.rpartition(".")[2] for outgoing in rig.sink.sent]
            assert kinds == ["enriched", "dlq", "enriched", "enriched"]
            await rig.commit()
            assert rig.position(0) == len(values)
            said = dict(rig.sink.sent[1].headers)["__penstock.errors.attempts"]
        asked = sum(b"poison" in seen.body for seen in server.requests)
        assert said == b"%d" % asked
        assert 1 <= asked <= ATTEMPTS
        await client.close()
