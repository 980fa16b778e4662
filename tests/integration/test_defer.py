"""`when_unavailable: defer`: what the model does not answer waits in the retry topic, comes back, and ends once."""

import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.structs import ConsumerRecord

from tests.support.commit_sampler import sampling
from tests.support.deployment import PENSTOCK, WorkerProcess, wait_for
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import New
from topics import retries
from workers.audit import Verdict
from workers.audit.verdict import Tally

SENT_MS = 1_700_000_000_000
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FAST_MODEL = {"timeout_s": 15, "max_attempts": 1, "breaker": {"reset_timeout_s": 0.2}}
LONG_S = 600.0
"""Longer than any test waits."""


def deferring(topic: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """A task that defers, for a second and almost without end."""
    task = {"input": topic, "order": "none", "when_unavailable": "defer", "deadline_s": 20}
    return {TASK: task | {"retry_delay_s": 1.0, "max_deferrals": 99, "fallback_rate": "unlimited"} | changes}


def sent(count: int) -> list[New]:
    """Records with a timestamp and headers of their own, and a forged one."""
    headers = [
        ("ce_id", b"a1"),
        ("traceparent", TRACEPARENT),
        ("shop", b"berlin"),
        ("__penstock.retry.deferrals", b"9"),
    ]
    return [
        New(key=one.key, value=one.value, headers=headers, timestamp_ms=SENT_MS + place)
        for place, one in enumerate(tickets(count))
    ]


def deferred(worker: WorkerProcess) -> float:
    """How many deferrals the worker has counted."""
    return worker.metric('penstock_records_total{.*outcome="deferred"')


def enriched(worker: WorkerProcess) -> float:
    """How many records the worker has had answered."""
    return worker.metric('penstock_records_total{.*outcome="enriched"')


async def close_the_breaker(stand: Stand, topic: str, worker: WorkerProcess) -> int:
    """Send one record after the other until one is let through as a trial; return how many it took."""
    before = deferred(worker)
    for tries in range(1, 200):
        await stand.put(topic, tickets(1, start=5_000 + tries))
        wait_for(lambda tries=tries: deferred(worker) + enriched(worker) >= before + tries, 30)
        if enriched(worker):
            return tries
    raise AssertionError("the breaker stays open")


def retry_lag(worker: WorkerProcess) -> float:
    """How many records wait in the retry topic, as its replica says."""
    return worker.metric("penstock_retry_lag_records{")


def penstock(*arguments: str | Path) -> str:
    """Run a command that must find nothing wrong; return what it prints."""
    ran = subprocess.run([PENSTOCK, *arguments], capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


async def judged(stand: Stand, topic: str, **asked: Any) -> Verdict:
    """The oracle's verdict over a task that defers."""
    return await stand.verdict(topic, defers=True, order="none", **asked)


def total(verdict: Verdict) -> Tally:
    """The tallies of all partitions."""
    tallies = verdict.partitions.values()
    return Tally(
        records=sum(one.records for one in tallies),
        finished=sum(one.finished for one in tallies),
        waiting=sum(one.waiting for one in tallies),
    )


def source_of(record: ConsumerRecord) -> str:
    """Where the output says that it comes from."""
    return dict(record.headers)["__penstock.source"].decode()


@pytest.mark.fault("E28")
async def test_deferred_records_come_back_and_end_as_if_they_came_from_the_input(
    real: Stand, simulate: Simulate
) -> None:
    """While the model is away the input is acked; when it is back each record is answered once, unchanged."""
    topic, model = await real.create(defers=True), simulate(latency="const:0.02")
    model.fail("503")
    await real.put(topic, sent(120))
    with real.worker(deferring(topic), model.url, model=FAST_MODEL) as worker:
        wait_for(lambda: deferred(worker) >= 120 and worker.lag() == 0, 60, lambda: f"{deferred(worker)} deferred")
        assert await real.committed(topic) == await real.ends(topic)
        for _ in range(3):  # at any moment, also while records go round
            meanwhile = await judged(real, topic, over=False)
            assert not meanwhile.broken()
            assert total(meanwhile) == Tally(records=120, waiting=120)
        worker.wait_ready()
        model.ok()
        wait_for(lambda: enriched(worker) == 120, 60, lambda: f"{enriched(worker)} answered")
        wait_for(lambda: retry_lag(worker) == 0, 30)
        assert worker.terminate()[0] == 0
    found = await judged(real, topic, settled=True)
    assert not found.broken()
    assert found.by_kind == {"enriched": 120}
    inputs = {orjson.loads(one.value)["text"]: place for place, one in enumerate(sent(120))}
    for output in await real.read(topic, "enriched"):
        place = inputs[orjson.loads(output.value)["input"]["text"]]
        assert output.timestamp == SENT_MS + place
        assert output.partition == int(source_of(output).split("/")[1])
        assert output.headers[:2] == (("ce_id", b"a1"), ("traceparent", TRACEPARENT))
        assert not [name for name, _ in output.headers if name.startswith(retries.RETRY)]
    [first, *_] = await real.read(topic, "retry")
    assert first.timestamp > SENT_MS + 1_000_000
    assert ("shop", b"berlin") in first.headers


@pytest.mark.fault("E28", "P2")
async def test_kill_9_between_deferral_and_return_loses_nothing(real: Stand, simulate: Simulate) -> None:
    """Whatever the crash leaves behind is in the input or in the retry topic, by the group's commits at any moment."""
    topic, model = await real.create(defers=True), simulate(latency="const:0.02")
    model.fail("503")
    more = {"model": FAST_MODEL, "kafka": {"group_instance_id": "only"}}
    async with sampling(real.servers, real.group, topic, TASK, defers=True) as sampler:
        await real.put(topic, tickets(400))
        with real.worker(deferring(topic), model.url, **more) as worker:
            wait_for(lambda: deferred(worker) >= 100, 60)
            worker.kill()
        with real.worker(deferring(topic), model.url, **more) as worker:
            wait_for(lambda: deferred(worker) >= 200, 90)
            worker.kill()
        await sampler.now("killed")
        meanwhile = await judged(real, topic, over=False, samples=sampler.samples)
        assert not meanwhile.broken(crashed=True)
        assert total(meanwhile).waiting == 400
        model.ok()
        with real.worker(deferring(topic), model.url, **more) as worker:
            wait_for(lambda: worker.lag() == 0 and retry_lag(worker) == 0, 90, lambda: f"{retry_lag(worker)} left")
            assert worker.terminate()[0] == 0
    found = await judged(real, topic, settled=True, samples=sampler.samples)
    assert not found.broken(crashed=True)
    assert found.by_kind == {"enriched": 400}


@pytest.mark.fault("E28")
async def test_after_the_last_deferral_the_ladder_answers(real: Stand, simulate: Simulate) -> None:
    """A model that stays away: two deferrals each, and then the ladder, with why the model did not answer."""
    topic, model = await real.create(defers=True), simulate(latency="const:0.02")
    model.fail("503")
    await real.put(topic, tickets(60))
    with real.worker(deferring(topic, max_deferrals=2), model.url, model=FAST_MODEL) as worker:
        wait_for(lambda: worker.metric('penstock_records_total{.*outcome="fallback"') == 60, 90)
        assert deferred(worker) == 120
        assert worker.terminate()[0] == 0
    found = await judged(real, topic, settled=True)
    assert not found.broken()
    assert found.by_kind == {"fallback": 60}
    assert {end.reason for end in found.ends} <= {"breaker_open", "overloaded"}
    waited = [retries.decode(one.headers) for one in await real.read(topic, "retry")]
    assert Counter(retry.deferrals for retry in waited if retry) == {1: 60, 2: 60}


@pytest.mark.fault("E28")
async def test_what_is_not_due_holds_up_nothing_else(real: Stand, simulate: Simulate) -> None:
    """Records that wait are no lag, and neither new records nor a stop wait for them; another delay takes them up."""
    topic, model = await real.create(defers=True), simulate(latency="const:0.02")
    model.fail("503")
    await real.put(topic, tickets(40))
    with real.worker(deferring(topic, retry_delay_s=LONG_S), model.url, model=FAST_MODEL) as worker:
        wait_for(lambda: retry_lag(worker) == 40 and worker.lag() == 0, 60, lambda: f"{retry_lag(worker)} wait")
        model.ok()
        tries = await close_the_breaker(real, topic, worker)
        await real.put(topic, tickets(400, start=10_000))
        wait_for(lambda: enriched(worker) == 401, 60, lambda: f"{enriched(worker)} answered")
        waits = 40 + tries - 1
        wait_for(lambda: retry_lag(worker) == waits, 30, lambda: f"{retry_lag(worker)} of {waits} wait")
        assert worker.metric("penstock_retry_overdue_seconds{") == 0
        code, took_s = worker.terminate(LONG_S / 10)
        assert (code, took_s < LONG_S / 10) == (0, True)
    meanwhile = await judged(real, topic, over=False)
    assert not meanwhile.broken()
    assert total(meanwhile) == Tally(records=401 + waits, finished=401, waiting=waits)
    config = real.configuration(deferring(topic, retry_delay_s=LONG_S), model.url, model=FAST_MODEL)
    said = orjson.loads(penstock("audit", config, "--json"))
    assert said["ok"]
    assert sum(one["waiting"] for one in said["topics"][0]["partitions"]) == waits
    assert "6 topics are as they should be" in penstock("topics", "check", config)
    assert f"rights to read {topic}.{TASK}.retry: a fetch was answered" in penstock("dry-run", config)
    began_s = time.monotonic()
    with real.worker(deferring(topic), model.url, model=FAST_MODEL) as worker:
        wait_for(lambda: worker.lag() == 0 and enriched(worker) == waits, 60, lambda: f"{enriched(worker)} answered")
        assert worker.terminate()[0] == 0
    assert time.monotonic() - began_s < LONG_S
    assert not (found := await judged(real, topic, settled=True)).broken()
    assert found.by_kind == {"enriched": 401 + waits}
