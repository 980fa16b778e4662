"""A bad deployment: it must not drain its topic into the dead-letter topic, nor stop the other tasks."""

import pytest

from tests.support.deployment import wait_for
from tests.support.stand import Simulate, Stand, tickets
from workers.audit import named_source

BUDGET = 20
BROKEN = {"broken.j2": "{{ record.no_such_field }}\n"}


@pytest.mark.fault("D18")
async def test_a_template_that_always_fails_pauses_its_task(stand: Stand, simulate: Simulate) -> None:
    """At most 20 dead letters, then the task pauses and says so; nothing else is lost, and mending it is enough."""
    bad, good = await stand.create(task="bad"), await stand.create(task="good")
    await stand.put(bad, tickets(400, keys=50))
    await stand.put(good, tickets(300))
    model = simulate(latency="const:0.02")
    tasks = {"bad": {"input": bad}, "good": {"input": good}}
    broken = tasks | {"bad": {"input": bad, "prompt": {"system": "system.txt", "user": "broken.j2"}}}
    with stand.worker(broken, model.url, files=BROKEN) as worker:
        wait_for(lambda: "task bad is paused" in worker.not_ready(), 60, worker.not_ready)
        assert "no_such_field" in worker.not_ready()
        wait_for(lambda: worker.metric('penstock_records_total{.*task="good"') == 300, 60)
        wait_for(lambda: worker.metric('penstock_task_held{reason="guard",task="bad"') == 1, 60)
        assert worker.get("/livez")[0] == 200
        assert worker.terminate()[0] == 0
    letters = await stand.read(bad, "dlq", "bad")
    assert 0 < len(letters) <= BUDGET
    assert {dict(one.headers)["__penstock.errors.stage"] for one in letters} == {b"prompt"}
    done = {named_source(one) for one in letters}
    for partition, offset in (await stand.committed(bad)).items():
        assert {f"{bad}/{partition}/{below}" for below in range(offset)} <= done
    assert not (await stand.verdict(good, "good")).broken()
    with stand.worker(tasks, model.url) as worker:
        worker.wait_finished(400 - len(letters))
        assert worker.terminate()[0] == 0
    assert not (found := await stand.verdict(bad, "bad")).broken()
    assert found.by_kind == {"enriched": 400 - len(letters), "dlq": len(letters)}
