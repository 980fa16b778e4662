"""The embedded broker of the demo, with the way to create topics that tests use on a real one too."""

from collections.abc import Mapping

from workers.demo.broker import EmbeddedBroker


class EmbeddedKafka(EmbeddedBroker):
    """Starts in a tenth of a second. One member per group, no topic configs: see workers/demo/broker.py."""

    name = "embedded"

    async def create_topics(self, topics: Mapping[str, int], configs: Mapping[str, str] | None = None) -> None:
        """Create topics (name: partitions). The mock knows no `configs`: they are taken and have no effect."""
        del configs
        for name, partitions in topics.items():
            self.create_topic(name, partitions)
