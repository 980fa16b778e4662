"""A deployment under steady load that faults are done to: a broker of its own, workers, a feeder, and who watches them.

Nothing here asks a worker what it did: figures come from the topics, from the group's commits and from the model.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from tests.support.commit_sampler import CommitSampler, sampling
from tests.support.deployment import WorkerProcess
from tests.support.fault_figures import Figures, note
from tests.support.flow import Flow, flow_of
from tests.support.kafka import KafkaBroker
from tests.support.stage import TASK, Stage
from workers.demo.processes import LIFETIME_S

PARTITIONS, KEYS, SLOTS = 12, 500, 32
LATENCY = "heavy:0.05:2:0.1"
"""One call in ten takes forty times as long as the others."""
RESUME_S = 90.0
FINISH_S = 600.0
"""For a backlog that hours of faults on a busy machine have left."""
FEED_EVERY_S = 0.05
FEED_PATIENCE_MS = 300_000
"""How long the feeder's producer tries again while a broker is away."""


@dataclass
class Scene:
    """Workers by name, all of one group; `fault` is what is done to them. Each fault returns when it is over."""

    stage: Stage
    flow: Flow
    sampler: CommitSampler
    figures: Figures
    chance: random.Random
    workers: dict[str, WorkerProcess] = field(default_factory=dict)
    produced: int = 0
    spared: set[str] = field(default_factory=set)

    def start(self, name: str) -> WorkerProcess:
        """Start a worker, or start one again that has ended."""
        self.workers[name] = self.stage.worker(name)
        return self.workers[name]

    async def suffer(self, fault: Callable[["Scene"], Awaitable[None]], times: int = 1) -> None:
        """Let the fault happen so often, each time at a random moment, and wait until every partition moves again."""
        for _ in range(times):
            await asyncio.sleep(self.chance.uniform(0.2, 1.5))
            self.figures.faults += 1
            self.figures.in_flight_at_faults += self.in_flight()
            await fault(self)
            await self.progress()

    async def progress(self) -> None:
        """Wait until every partition has output, and note how long that took."""
        since_s = time.monotonic()
        every = range(PARTITIONS)
        await self.flow.until(lambda: self.flow.resumed_s(since_s, every) is not None, RESUME_S)
        self.figures.progress_s.append(round(self.flow.resumed_s(since_s, every) or 0.0, 2))

    def in_flight(self) -> int:
        """Calls that the model holds now."""
        return self.stage.model.counts()["in_flight"]

    async def finish(self) -> Figures:
        """Let the workers do what is left, stop them, and account for every record."""
        self.stage.model.ok()
        for name, worker in self.workers.items():
            if worker.running.poll() is not None:
                self.start(name)
        await self.stage.wait_committed(self.produced, FINISH_S)
        stopping = [asyncio.to_thread(worker.terminate) for worker in self.workers.values()]
        for worker, (code, took_s) in zip(self.workers.values(), await asyncio.gather(*stopping), strict=True):
            assert code == 0, worker.tail()
            self.figures.sigterm_s.append(round(took_s, 2))
        await self.judge()
        return self.figures

    async def judge(self) -> None:
        """Read the topics back; a broken invariant fails the test and is named."""
        samples = self.sampler.samples
        verdict = await self.stage.verdict(samples=samples)
        figures = self.figures
        figures.records, figures.samples = verdict.inputs, len(samples)
        figures.lost, figures.repeated = len(verdict.lost), verdict.repeats
        figures.order_violations, figures.early_commits = len(verdict.out_of_order), len(verdict.early)
        figures.calls_repeated = self.stage.model.counts()["requests"] - verdict.by_kind["enriched"]
        note(figures)
        assert verdict.inputs == self.produced
        assert not (broken := verdict.broken(crashed=True)), broken
        assert figures.repeated < 0.2 * figures.records


@contextlib.asynccontextmanager
async def scene(
    folder: Path,
    broker: KafkaBroker,
    fault: str,
    *,
    workers: int = 2,
    rate_per_s: float = 230,
    seed: int = 1,
    static: bool = False,
    lifetime_s: float = LIFETIME_S,
    **settings: Any,
) -> AsyncIterator[Scene]:
    """Start workers under a load of nine tenths of what they can do, so that each fault leaves them with full slots."""
    settings = {"model": {"max_in_flight": SLOTS}} | settings
    async with (
        Stage(
            folder, broker, partitions=PARTITIONS, latency=LATENCY, static=static, lifetime_s=lifetime_s, **settings
        ) as stage,
        flow_of(broker.bootstrap_servers, f"{stage.topic}.{TASK}.enriched", PARTITIONS) as flow,
        sampling(broker.bootstrap_servers, stage.group, stage.topic, TASK) as sampler,
    ):
        made = Scene(stage, flow, sampler, Figures(fault=fault), random.Random(seed))
        for name in itertools.islice("abcdefgh", workers):
            made.start(name)
        for worker in made.workers.values():
            await asyncio.to_thread(worker.wait_ready)
        async with fed(made, rate_per_s):
            await made.flow.until_total(PARTITIONS * 10, 60)
            yield made
        await made.finish()


@contextlib.asynccontextmanager
async def fed(made: Scene, rate_per_s: float) -> AsyncIterator[None]:
    """Write records at a steady rate while the block runs; what the broker took counts, and nothing else."""
    producer = AIOKafkaProducer(
        bootstrap_servers=made.stage.broker.bootstrap_servers,
        enable_idempotence=True,
        request_timeout_ms=FEED_PATIENCE_MS,
        linger_ms=5,
    )
    await producer.start()
    stop = asyncio.Event()
    feeding = asyncio.create_task(_feed(made, producer, rate_per_s, stop))
    try:
        yield
    finally:
        stop.set()
        try:
            await feeding
        finally:
            await producer.stop()


async def _feed(made: Scene, producer: AIOKafkaProducer, rate_per_s: float, stop: asyncio.Event) -> None:
    began_s = time.monotonic()
    sent: list[Any] = []
    while not stop.is_set():
        due = int((time.monotonic() - began_s) * rate_per_s)
        for number in range(len(sent), due):
            key = b"key-%d" % made.chance.randrange(KEYS)
            sent.append(await producer.send(made.stage.topic, _body(number), key=key))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), FEED_EVERY_S)
    await asyncio.gather(*sent)
    made.produced = len(sent)


def _body(number: int) -> bytes:
    return orjson.dumps({"number": number, "at_ms": time.time_ns() // 1_000_000})
