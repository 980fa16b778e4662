"""What a broker may answer to a produce request, scripted on the embedded broker under a worker at work."""

import asyncio

import pytest

from tests.support.deployment import WorkerProcess, wait_for
from tests.support.embedded import EmbeddedKafka
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.tcp_proxy import TcpProxy
from topics import deadletters
from workers.demo.processes import SimulatedModel

PRODUCE = 0
NOT_LEADER, TIMED_OUT, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_AFTER_APPEND = 6, 7, 19, 20
TOPIC_NOT_ALLOWED, CLUSTER_NOT_ALLOWED = 29, 31
POLICY_VIOLATION, STORAGE, INVALID_RECORD = 44, 56, 87

RECORDS, IN_FLIGHT = 30, 32
WAIT_S = 90.0
PATIENT, DEADLINE_S = {"timeout_s": 60}, 120
"""For calls that are held up until a script is there."""
FOR_EVER = 20_000
SEND_TIMEOUT_S, LATE_MS = 1.0, 1_500
GAVE_UP = "Got error produce response: [Error 7] RequestTimedOutError"
"""What aiokafka's sender logs about an answer that it no longer waits for."""
DRAIN_S, CLOSE_S, SLACK_S = 1.0, 5.0, 10.0
"""The worker promises to end within drain_s + 5 s; a loaded machine may take longer to notice that it has."""


def gated(model: SimulatedModel) -> TcpProxy:
    """Return a link to the model, not open yet: while it is cut the model is asked, and no answer comes."""
    return TcpProxy(int(model.url.rsplit(":", 1)[1]))


async def through(
    stand: Stand, simulate: Simulate, broker: EmbeddedKafka, *scripts: list[int], records: int = RECORDS
) -> tuple[str, str]:
    """Let a worker meet these answers, one script after the other; return its input topic and what it logged.

    Whatever they were: every record ends once, in order, and the worker is ready afterwards. The model is heard only
    when the script is there: the test's own records must not meet it, and the worker's must.
    """
    topic = await stand.create()
    tasks = {TASK: {"input": topic, "deadline_s": DEADLINE_S}}
    with (
        gated(simulate(latency="const:0.05")) as gate,
        stand.worker(tasks, f"http://{gate.address}", model=PATIENT) as worker,
    ):
        worker.wait_ready()
        for number, codes in enumerate(scripts):
            gate.cut()
            await stand.put(topic, tickets(records, keys=10, start=number * records))
            broker.push_errors(PRODUCE, codes)
            gate.heal()
            await asyncio.to_thread(worker.wait_finished, (number + 1) * records)
        worker.wait_ready()
        assert worker.terminate()[0] == 0
    verdict = await stand.verdict(topic, settled=True)
    assert not verdict.broken()
    assert verdict.inputs == len(scripts) * records
    return topic, worker.log.read_text()


@pytest.mark.fault("O4", "O5")
async def test_errors_that_pass_are_the_clients_own_affair(
    quick: Stand, simulate: Simulate, embedded: EmbeddedKafka
) -> None:
    """Too few replicas, no leader, a disk that is full: tried again inside the client, on the same future."""
    passing = (TIMED_OUT, NOT_LEADER, STORAGE, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_AFTER_APPEND)
    topic, said = await through(quick, simulate, embedded, [code for code in passing for _ in range(3)])
    assert "producer_replaced" not in said
    assert not await quick.read(topic, "dlq")


@pytest.mark.fault("O4")
async def test_too_few_replicas_for_ever_hold_the_records(
    quick: Stand, simulate: Simulate, embedded: EmbeddedKafka
) -> None:
    """Nothing is dropped or committed, the intake stops at its bound, `/readyz` says why, and SIGTERM still ends it."""
    topic, model = await quick.create(), simulate(latency="const:0.05")
    tasks = {TASK: {"input": topic, "max_in_flight": IN_FLIGHT, "deadline_s": DEADLINE_S}}
    more = {"model": PATIENT, "worker": {"drain_s": DRAIN_S}, "kafka": {"send_timeout_s": SEND_TIMEOUT_S}}
    with gated(model) as gate, quick.worker(tasks, f"http://{gate.address}", **more) as worker:
        worker.wait_ready()
        gate.cut()
        await quick.put(topic, tickets(3 * IN_FLIGHT))
        embedded.push_errors(PRODUCE, [NOT_ENOUGH_REPLICAS] * FOR_EVER)
        gate.heal()
        await asyncio.to_thread(wait_for, lambda: "the oldest send" in worker.not_ready(), WAIT_S, worker.not_ready)
        assert worker.metric("penstock_producer_replaced_total") == 0
        assert worker.metric(r"penstock_records_total\b") == 0
        assert model.counts()["requests"] < 3 * IN_FLIGHT
        assert worker.get("/livez")[0] == 200
        assert not any((await quick.committed(topic)).values())
        code, took_s = await asyncio.to_thread(worker.terminate)
        assert code == 0
        assert took_s < DRAIN_S + CLOSE_S + SLACK_S
    assert not any((await quick.committed(topic)).values())


@pytest.mark.fault("O3")
async def test_a_right_that_is_missing_makes_no_dead_letters(
    quick: Stand, simulate: Simulate, embedded: EmbeddedKafka
) -> None:
    """Refused at once and not for ever: the records are held, and go when the right is granted, without a restart."""
    topic, said = await through(quick, simulate, embedded, [TOPIC_NOT_ALLOWED, CLUSTER_NOT_ALLOWED] * 2)
    assert "producer_replaced" in said
    assert not await quick.read(topic, "dlq")


@pytest.mark.fault("O6")
async def test_a_record_that_the_broker_refuses_is_a_dead_letter(
    quick: Stand, simulate: Simulate, embedded: EmbeddedKafka
) -> None:
    """Its batch is refused, and then it alone: it pays, on a new producer, and the next ones arrive."""
    refusals = [POLICY_VIOLATION] * 2, [INVALID_RECORD] * 2
    topic, said = await through(quick, simulate, embedded, *refusals, [TIMED_OUT], records=1)
    assert said.count("producer_replaced") == 2
    letters = await quick.read(topic, "dlq")
    assert [deadletters.decode(one.value, one.headers).failure.stage for one in letters] == ["send"] * 2
    assert len(await quick.read(topic, "enriched")) == 1


@pytest.mark.fault("O8")
async def test_a_send_that_timed_out_and_arrives_after_all_is_a_duplicate_of_the_same_source(
    quick: Stand, simulate: Simulate, embedded: EmbeddedKafka
) -> None:
    """I2: the broker had it, its answer came too late, and it was sent again: nothing else is in the output.

    `/readyz` knows of a send that waits when the client gives up, and sometimes before: the client's own word counts.
    """
    topic = await quick.create()
    tasks, kafka = {TASK: {"input": topic}}, {"send_timeout_s": SEND_TIMEOUT_S}
    with quick.worker(tasks, simulate(latency="const:0.3").url, kafka=kafka) as worker:
        await quick.put(topic, tickets(RECORDS))
        await asyncio.to_thread(worker.wait_finished, RECORDS)
        embedded.set_rtt_ms(LATE_MS)
        await quick.put(topic, tickets(RECORDS, keys=10, start=RECORDS))
        await asyncio.to_thread(wait_for, lambda: GAVE_UP in worker.log.read_text(), 60, worker.not_ready)
        embedded.set_rtt_ms(0)
        await asyncio.to_thread(worker.wait_finished, 2 * RECORDS)
        worker.wait_ready()
        assert worker.terminate()[0] == 0
    verdict = await quick.verdict(topic, settled=True)
    assert not verdict.broken(crashed=True)
    assert verdict.repeats > 0, "nothing arrived after its time"


@pytest.mark.fault("O10")
async def test_a_worker_whose_producer_cannot_close_ends_all_the_same(
    quick: Stand, simulate: Simulate, embedded: EmbeddedKafka
) -> None:
    """Sends wait for a broker that is gone, and so would the producer's own stop: SIGTERM is 0, in bounded time."""
    topic, model = await quick.create(), simulate(latency="const:0.5")
    tasks: dict[str, dict[str, object]] = {TASK: {"input": topic}}
    more = {"model": {"max_in_flight": 8}, "worker": {"drain_s": DRAIN_S}, "kafka": {"session_timeout_s": 2.0}}
    await quick.put(topic, tickets(200, keys=50))
    with quick.worker(tasks, model.url, **more) as worker:
        await asyncio.to_thread(wait_for, lambda: model.counts()["answered"] > 16, WAIT_S)  # some seconds are left
        embedded.down()
        asked = model.counts()["answered"]
        await asyncio.to_thread(wait_for, lambda: pending(worker) > 0 and model.counts()["answered"] > asked, WAIT_S)
        code, took_s = await asyncio.to_thread(worker.terminate)
    assert code == 0
    assert took_s < DRAIN_S + CLOSE_S + SLACK_S
    embedded.up()
    with quick.worker(tasks, model.url, kafka=more["kafka"]) as worker:
        await asyncio.to_thread(wait_for, lambda: worker.lag() == 0, WAIT_S)
        assert worker.terminate()[0] == 0
    assert not (await quick.verdict(topic, settled=True)).broken(crashed=True)


def pending(worker: WorkerProcess) -> float:
    """Sends that wait for their confirmation."""
    return worker.metric("penstock_sends_pending")
