"""A test stand: topics of its own on a broker that others share, configurations, and workers over them."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.structs import ConsumerRecord

from tests.support.deployment import WorkerProcess, configuration
from tests.support.embedded import EmbeddedKafka
from tests.support.kafka import KafkaBroker
from tests.support.topics import New, committed, ends, fresh_name, produce, read_all
from tests.support.verdicts import verdict_of
from topics.spec import KINDS, KINDS_WITH_RETRY, output_names
from workers.audit import Verdict
from workers.demo.processes import SimulatedModel
from workers.settings.model import Kafka

Broker = KafkaBroker | EmbeddedKafka
Simulate = Callable[..., SimulatedModel]
"""What the fixture `simulate` is: called with a model's settings, it starts one that ends with the test."""

TASK = "triage"


def tickets(count: int, *, keys: int = 0, start: int = 0, partition: int | None = None) -> list[New]:
    """Return so many tickets, in turn under `keys` keys, or each under its own."""
    return [
        New(key=b"k%d" % (n % keys if keys else n), value=b'{"text": "invoice %d"}' % n, partition=partition)
        for n in range(start, start + count)
    ]


@dataclass
class Stand:
    """What one test works on. A worker that it makes is not started: `with stand.worker(...) as worker:`."""

    broker: Broker
    folder: Path
    group: str = field(default_factory=lambda: fresh_name("group"))
    workers: int = 0

    @property
    def servers(self) -> str:
        """The broker's address."""
        return self.broker.bootstrap_servers

    async def create(
        self,
        *,
        task: str = TASK,
        partitions: int = 4,
        max_bytes: Mapping[str, int] | None = None,
        defers: bool = False,
    ) -> str:
        """Create an input topic and the outputs that a task writes for it; return the input's name.

        `max_bytes` limits outputs by their kind (`max.message.bytes`). `defers`: with a retry topic.
        """
        topic = fresh_name("in")
        await self.broker.create_topics({topic: partitions})
        limits = max_bytes or {}
        for kind, name in output_names(topic, task, kinds=KINDS_WITH_RETRY if defers else KINDS).items():
            configs = {"max.message.bytes": str(limits[kind])} if kind in limits else {}
            await self.broker.create_topics({name: partitions}, configs=configs)
        return topic

    async def put(self, topic: str, records: Iterable[New]) -> None:
        """Write records; return when the broker has them."""
        await produce(self.servers, topic, records)

    async def read(self, topic: str, kind: str, task: str = TASK) -> list[ConsumerRecord]:
        """Return what a task wrote for an input topic, by the kind of output."""
        return await read_all(self.servers, f"{topic}.{task}.{kind}")

    async def verdict(self, topic: str, task: str = TASK, **asked: Any) -> Verdict:
        """Return what became of the records of an input topic; see `verdict_of` for what may be asked."""
        return await verdict_of(self.kafka, topic, task, **asked)

    @property
    def kafka(self) -> Kafka:
        """The stand's group on its broker."""
        return Kafka(bootstrap_servers=self.servers, group_id=self.group)

    async def committed(self, topic: str) -> dict[int, int]:
        """Return the group's committed offset of each partition that has one."""
        found = await committed(self.servers, self.group, [topic])
        return {at.partition: offset for at, (offset, _) in found.items()}

    async def wait_committed(self, topic: str, timeout_s: float = 90) -> dict[int, int]:
        """Wait until the group has committed every partition to its end; return the offsets."""
        ends = await self.ends(topic)
        async with asyncio.timeout(timeout_s):
            while await self.committed(topic) != ends:  # noqa: ASYNC110 - the broker has no event for it
                await asyncio.sleep(0.1)
        return ends

    async def ends(self, topic: str) -> dict[int, int]:
        """Return where each partition ends."""
        return await ends(self.servers, topic)

    def configuration(self, tasks: dict[str, dict[str, Any]], url: str = "http://127.0.0.1:9", **more: Any) -> Path:
        """Write the configuration of the stand's group; return its path."""
        return configuration(
            self.folder / "config",
            bootstrap_servers=self.servers,
            group_id=self.group,
            url=url,
            tasks=tasks,
            **more,
        )

    def worker(self, tasks: dict[str, dict[str, Any]], url: str, **more: Any) -> WorkerProcess:
        """Return a worker over a new configuration, with a log of its own."""
        self.workers += 1
        return WorkerProcess(self.configuration(tasks, url, **more), self.folder / f"worker-{self.workers}.log")
