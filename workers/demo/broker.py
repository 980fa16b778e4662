"""The embedded broker: Kafka's protocol in memory, in a child process, for the demo and for quick tests."""

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from workers.demo.child import Child
from workers.demo.mock_cluster import library_path
from workers.errors import EX_SOFTWARE, Exit

LIFETIME_S = 3_600.0
TOPIC_EXISTS = 36
"""Kafka's error code TOPIC_ALREADY_EXISTS."""


class EmbeddedBroker:
    """A broker on a free port of 127.0.0.1 that ends with us, or after `lifetime_s`.

    Single broker, nothing on disk, about 5 MiB per partition. The methods block for less than a millisecond as a rule.

    Raises:
        Exit: 69 when confluent-kafka is not installed (extra `demo`).
    """

    def __init__(self, topics: Mapping[str, int] | None = None, *, lifetime_s: float = LIFETIME_S) -> None:
        library_path()  # says what is missing here, before a child would
        self._child = Child("workers.demo.mock_cluster", [str(lifetime_s)])
        self.bootstrap_servers = self._child.ready_line
        for name, partitions in (topics or {}).items():
            self.create_topic(name, partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The broker's process."""
        return self._child.pid

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic; one that exists is left as it is."""
        self._command("create_topic", name, partitions, allowed=(0, TOPIC_EXISTS))

    def down(self) -> None:
        """Close every connection and refuse new ones, until `up`."""
        self._command("down")

    def up(self) -> None:
        """Accept connections again; records and offsets are still there."""
        self._command("up")

    def push_errors(self, api_key: int, codes: Sequence[int]) -> None:
        """Answer the next `len(codes)` requests of this kind (0 Produce, 1 Fetch, 8 OffsetCommit) with these codes.

        Codes are Kafka's own; -195 closes the connection instead of answering.
        """
        self._command("push_errors", api_key, list(codes))

    def set_rtt_ms(self, rtt_ms: int) -> None:
        """Delay every answer by `rtt_ms` milliseconds, the mock's own unit."""
        self._command("set_rtt_ms", rtt_ms)

    def stop(self) -> None:
        """End the broker. Safe to call twice."""
        self._child.stop()

    def _command(self, name: str, *arguments: object, allowed: tuple[int, ...] = (0,)) -> None:
        code = int(self._child.ask(json.dumps([name, *arguments])))
        if code not in allowed:
            raise Exit(EX_SOFTWARE, f"the embedded broker refused {name}: Kafka error {code}")
