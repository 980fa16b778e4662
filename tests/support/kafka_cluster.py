"""Three real brokers (KRaft, each also a controller) that replicate everything; a test kills, stops and starts each."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.support.kafka import BrokerFailedError, KafkaBroker, free_ports

NODES = (1, 2, 3)
REPLICAS, IN_SYNC = 3, 2
ANSWER_S = 30.0
PROPERTIES = f"""\
default.replication.factor={REPLICAS}
min.insync.replicas={IN_SYNC}
offsets.topic.replication.factor={REPLICAS}
transaction.state.log.replication.factor={REPLICAS}
transaction.state.log.min.isr={IN_SYNC}
share.coordinator.state.topic.replication.factor={REPLICAS}
share.coordinator.state.topic.min.isr={IN_SYNC}
"""


class Node(KafkaBroker):
    """One of the three: its ports are given, since all nodes name each other's."""

    def __init__(self, folder: Path, number: int, ports: Mapping[int, tuple[int, int]]) -> None:
        voters = ",".join(f"{each}@127.0.0.1:{controller}" for each, (_, controller) in ports.items())
        properties = dict(line.split("=", 1) for line in PROPERTIES.splitlines())
        super().__init__(
            folder, properties=properties | {"node.id": str(number), "controller.quorum.voters": voters}, heap="256m"
        )
        self._given = ports[number]

    def _choose_ports(self) -> tuple[int, int]:
        return self._given

    def prepare(self) -> None:
        """Write the settings and format the data folder."""
        self._prepare()

    def launch(self) -> None:
        """Start the process; it serves only once a majority of the nodes runs."""
        self._launch()

    def await_served(self) -> None:
        """Wait until it serves.

        Raises:
            BrokerFailedError: it ended, or was not ready in time.
        """
        if not self._serves():
            raise BrokerFailedError(self.log_tail())


class KafkaCluster:
    """Replication factor 3, `min.insync.replicas` 2: one node may be away, and nothing that was confirmed is lost."""

    name = "cluster"

    def __init__(self, folder: Path) -> None:
        ports = {number: (port, controller) for number in NODES for port, controller in [free_ports(2)]}
        self.nodes = {number: Node(folder / f"node-{number}", number, ports) for number in NODES}

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(Node.prepare, self.nodes.values()))
        try:
            self.start_all()
        except BaseException:
            self.kill_all()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill_all()  # by force: a controlled shutdown waits for a majority that is going away as well

    @property
    def bootstrap_servers(self) -> str:
        """All three."""
        return ",".join(node.bootstrap_servers for node in self.nodes.values())

    def kill(self, number: int) -> None:
        """SIGKILL a node; its data stay."""
        self.nodes[number].kill()

    def kill_all(self) -> None:
        """SIGKILL every node."""
        for node in self.nodes.values():
            node.kill()

    def start_all(self) -> None:
        """Start every node, all at once; returns when they serve."""
        for node in self.nodes.values():
            node.launch()
        for node in self.nodes.values():
            node.await_served()

    def stop(self, number: int) -> None:
        """SIGTERM a node: it hands its leaderships over first."""
        self.nodes[number].stop()

    def start(self, number: int) -> None:
        """Start a node again on its data and ports; returns when it serves."""
        self.nodes[number].start()

    async def create_topics(self, topics: Mapping[str, int], configs: Mapping[str, str] | None = None) -> None:
        """Create topics (name: partitions), three replicas each."""
        await self.nodes[NODES[0]].create_topics(topics, configs, replicas=REPLICAS)

    async def leader(self, topic: str, partition: int) -> int:
        """Return the number of the node that leads a partition; wait while none does."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                [told] = await self._described(topic)
                found = next(int(each["leader"]) for each in told["partitions"] if each["partition"] == partition)
                if found in NODES:
                    return found
                await asyncio.sleep(0.1)

    async def in_sync(self, topic: str) -> int:
        """Return how many replicas the partition with the fewest has in sync."""
        [told] = await self._described(topic)
        return min(len(each["isr"]) for each in told["partitions"])

    async def _described(self, topic: str) -> list[dict[str, list[dict[str, int]]]]:
        """Ask until a node answers: the admin client asks any of those it knows, the one that is away as well."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    try:
                        return list(await admin.describe_topics([topic]))
                    except KafkaError:
                        await asyncio.sleep(0.1)
        finally:
            await admin.close()
