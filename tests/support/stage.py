"""What one acceptance test needs: an input topic with its outputs, a simulated model, and workers of one group."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from tests.support.deployment import WorkerProcess, configuration, wait_for
from tests.support.kafka import KafkaBroker
from tests.support.topics import New, committed, fresh_name, produce, read_all
from tests.support.verdicts import verdict_of
from topics.spec import KINDS
from workers.audit import Verdict, named_source
from workers.demo.processes import LIFETIME_S, SimulatedModel
from workers.settings.model import Kafka

TASK = "t"
FED_AHEAD, FED_EVERY_S = 600, 0.1
ENDS = ("enriched", "fallback", "dlq")
"""The topics in which a record ends (a review copy is a copy)."""


class Stage:
    """Topics, model and configuration for one test; ends every worker that it started.

    Each worker gets its name as `${INSTANCE}`: it is in its client id, and with `static` it is its group instance id.
    `settings` are parts of the configuration: `model`, `kafka`, `worker`, `task`.
    """

    def __init__(
        self,
        folder: Path,
        broker: KafkaBroker,
        *,
        partitions: int = 4,
        latency: str = "const:0.05",
        static: bool = False,
        program: tuple[str | Path, ...] | None = None,
        lifetime_s: float = LIFETIME_S,
        **settings: dict[str, Any],
    ) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.broker = broker
        self.partitions = partitions
        self.topic, self.group = fresh_name("in"), fresh_name("group")
        self.model = self._stack.enter_context(SimulatedModel(latency=latency, capacity=2_000, lifetime_s=lifetime_s))
        self._program = program
        kafka = {"client_id": "${INSTANCE:penstock}"} | ({"group_instance_id": "${INSTANCE}"} if static else {})
        self.config = configuration(
            folder / "config",
            bootstrap_servers=broker.bootstrap_servers,
            group_id=self.group,
            url=self.model.url,
            tasks={TASK: {"input": self.topic, **settings.get("task", {})}},
            model=settings.get("model"),
            kafka=kafka | settings.get("kafka", {}),
            worker=settings.get("worker"),
        )

    async def __aenter__(self) -> Self:
        names = [self.topic, *(f"{self.topic}.{TASK}.{kind}" for kind in KINDS)]
        await self.broker.create_topics(dict.fromkeys(names, self.partitions))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stack.close()

    def worker(self, name: str = "a", *, instance: str | None = None) -> WorkerProcess:
        """Start a worker. A second one of the same name goes on writing to the same log."""
        worker = WorkerProcess(self.config, self._folder / f"{name}.log", env={"INSTANCE": instance or name})
        if self._program is not None:
            worker.program = self._program
        return self._stack.enter_context(worker)

    async def produce(self, count: int, *, keys: int = 100, first: int = 0, partition: int | None = None) -> None:
        """Write records numbered from `first`; a number's key is its rest by `keys`."""
        await produce(
            self.broker.bootstrap_servers,
            self.topic,
            [
                New(key=f"key-{number % keys}".encode(), value=orjson.dumps({"number": number}), partition=partition)
                for number in range(first, first + count)
            ],
        )

    async def feed(self, enough: asyncio.Event, *, keys: int = 100, ahead: int = FED_AHEAD) -> int:
        """Write records until it is enough, so that about `ahead` are never finished; return how many there are."""
        count = 0
        while not enough.is_set():
            finished = sum(offset for offset, _ in (await self.committed()).values())
            if (missing := finished + ahead - count) > 0:
                await self.produce(missing, keys=keys, first=count)
                count += missing
            await asyncio.sleep(FED_EVERY_S)
        return count

    async def verdict(self, **asked: Any) -> Verdict:
        """What became of every record; see `verdict_of` for what may be asked."""
        kafka = Kafka(bootstrap_servers=self.broker.bootstrap_servers, group_id=self.group)
        return await verdict_of(kafka, self.topic, TASK, **asked)

    async def ended(self) -> list[str]:
        """The sources of all outputs so far, repetitions included."""
        servers = self.broker.bootstrap_servers
        return [named_source(one) for kind in ENDS for one in await read_all(servers, f"{self.topic}.{TASK}.{kind}")]

    async def committed(self) -> dict[int, tuple[int, str]]:
        """Next offset and metadata by partition."""
        found = await committed(self.broker.bootstrap_servers, self.group, [self.topic])
        return {tp.partition: at for tp, at in found.items()}

    async def assert_commits_tell_the_truth(self, *, exact: bool = False) -> None:
        """Every offset that commits call finished is in an output; `exact`: and they call all finished ones so."""
        verdict = await self.verdict(over=False)
        assert not verdict.lost, f"committed but not written: {verdict.lost[:5]}"
        if exact:
            past = {number: tally.past_commit for number, tally in verdict.partitions.items() if tally.past_commit}
            assert not past, f"written but not committed, by partition: {past}"

    async def wait_ended(self, count: int, timeout_s: float = 90) -> None:
        """Wait until so many distinct records have ended."""
        ends_at_s = asyncio.get_running_loop().time() + timeout_s
        while (now := len(set(await self.ended()))) < count:
            assert asyncio.get_running_loop().time() < ends_at_s, f"{now} of {count} records ended in {timeout_s} s"
            await asyncio.sleep(0.3)

    async def wait_committed(self, count: int, timeout_s: float = 90) -> None:
        """Wait until the group has committed so many offsets: of a topic without gaps, so many records are finished."""
        ends_at_s = asyncio.get_running_loop().time() + timeout_s
        while (now := sum(offset for offset, _ in (await self.committed()).values())) < count:
            assert asyncio.get_running_loop().time() < ends_at_s, f"{now} of {count} committed in {timeout_s} s"
            await asyncio.sleep(0.3)


def wait_logged(worker: WorkerProcess, text: str, timeout_s: float = 60, *, times: int = 1) -> None:
    """Wait until the worker's log has the text so many times."""
    wait_for(lambda: logged(worker, text) >= times, timeout_s, lambda: f"no {text!r} in\n{worker.tail()}")


def logged(worker: WorkerProcess, text: str) -> int:
    """How often the worker's log has the text: it is there at once, metrics are a second old."""
    return worker.log.read_text().count(text)
