"""The broker dies and comes back under a running worker."""

import time
from pathlib import Path

import pytest

from tests.support.deployment import wait_for
from tests.support.kafka import KafkaBroker
from tests.support.stand import TASK, Simulate, Stand, tickets

IN_FLIGHT = 64
AWAY_S = 1.5


@pytest.mark.fault("B2")
async def test_a_broker_that_dies_and_comes_back(own_kafka: KafkaBroker, simulate: Simulate, tmp_path: Path) -> None:
    """Nothing is lost, no more is repeated than was in flight, and the worker neither ends nor needs a restart."""
    own = Stand(own_kafka, tmp_path)
    topic, model = await own.create(), simulate(latency="const:0.05")
    await own.put(topic, tickets(500, keys=100))
    tasks = {TASK: {"input": topic, "max_in_flight": IN_FLIGHT}}
    with own.worker(tasks, model.url, model={"max_in_flight": 8}) as worker:
        wait_for(lambda: worker.metric(r"penstock_records_total\b") >= 100, 60)
        await own.put(topic, tickets(1_000, keys=100, start=500))  # work for six seconds
        own_kafka.kill()
        time.sleep(AWAY_S)  # noqa: ASYNC251 - nothing else runs here, and the broker is away
        assert worker.get("/livez")[0] == 200
        assert worker.metric(r"penstock_records_total\b") < 1_500, "the broker was to die in the middle"
        own_kafka.start()
        worker.wait_finished(1_500)
        worker.wait_ready()
        assert worker.terminate()[0] == 0
    found = await own.verdict(topic)
    assert not found.lost
    assert found.repeats <= IN_FLIGHT
    assert not found.out_of_order
    assert not found.in_two_kinds
    assert await own.committed(topic) == await own.ends(topic)
