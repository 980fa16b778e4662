"""A bug outside every record: the process says so and ends, instead of going on with a part of it dead."""

import sys

import pytest

from tests.support.deployment import wait_for
from tests.support.kafka import ROOT
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.worker_with_a_bug import PLACES
from workers.errors import EX_SOFTWARE


@pytest.mark.fault("P11")
@pytest.mark.parametrize("place", PLACES)
async def test_a_part_that_dies_takes_the_process_with_it(quick: Stand, simulate: Simulate, place: str) -> None:
    """Whatever part has a bug: exit 70, and the traceback in the log."""
    topic, model = await quick.create(), simulate(latency="const:0.02")
    await quick.put(topic, tickets(20))
    broken = quick.worker({TASK: {"input": topic}}, model.url)
    broken.program = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.support.worker_with_a_bug", place)
    with broken:
        wait_for(lambda: broken.metric(r"penstock_records_total\b") > 0 or broken.running.poll() is not None, 60)
        await quick.put(topic, tickets(20, start=20))
        assert broken.exit_code() == EX_SOFTWARE, broken.tail()
    assert "raise Bug" in broken.log.read_text(), "a traceback says where it was"
