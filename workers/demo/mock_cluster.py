"""librdkafka's mock cluster, one broker, in a process of its own; told what to do by JSON lines on standard input.

The mock is a real server of Kafka's protocol in memory, inside the confluent-kafka wheel: rdkafka_mock.h of librdkafka
is the reference for every call here. What it lacks, as seen with aiokafka 0.14 on librdkafka 2.16:

- no CreateTopics, DescribeConfigs, DescribeGroups, ListGroups, DeleteRecords, ACLs, transactions or topic configs;
- about 5 MiB per partition: older records go;
- a name that does not exist becomes a topic of four partitions by being used;
- one member per group: when the leader's SyncGroup comes first, as it often does, the others' are refused as invalid;
- a member that joins after another one left waits for `session.timeout.ms` less a second;
- commit metadata of any length is taken (a real broker refuses more than 4,096 characters).
"""

import ctypes
import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.demo.child import end_after
from workers.errors import EX_UNAVAILABLE, Exit

BROKER_ID = 1
RD_KAFKA_PRODUCER = 0
JOIN_WAIT_MS = 200
"""How long a new group waits for more members (librdkafka's own default is 3,000: slow first join)."""

ALL_BROKERS = -1


def library_path(distribution: str = "confluent-kafka") -> Path:
    """Return librdkafka, the shared library inside the confluent-kafka wheel.

    Raises:
        Exit: the wheel is not installed, or carries no librdkafka of its own.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError as exc:
        raise Exit(EX_UNAVAILABLE, "the embedded broker needs confluent-kafka: pip install 'penstock[demo]'") from exc
    for file in files:
        if file.name.startswith("librdkafka") and ".so" in file.name:
            return Path(str(file.locate())).resolve()
    raise Exit(EX_UNAVAILABLE, "this confluent-kafka has no librdkafka inside: install its wheel, not its source")


class MockCluster:
    """One mock broker on a free port of 127.0.0.1."""

    def __init__(self, library: Any) -> None:
        self._library = library
        _declare(library)
        trouble = ctypes.create_string_buffer(512)
        settings = library.rd_kafka_conf_new()
        library.rd_kafka_conf_set(settings, b"log_level", b"3", trouble, len(trouble))  # errors only, to stderr
        client = library.rd_kafka_new(RD_KAFKA_PRODUCER, settings, trouble, len(trouble))
        if not client:
            raise Exit(EX_UNAVAILABLE, f"librdkafka did not start: {trouble.value.decode()}")
        self._cluster = library.rd_kafka_mock_cluster_new(client, 1)
        if not self._cluster:
            raise Exit(EX_UNAVAILABLE, "librdkafka could not open its mock cluster")
        library.rd_kafka_mock_set_controller_id(self._cluster, BROKER_ID)  # else 0: admin clients find no controller
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, JOIN_WAIT_MS)

    def bootstrap_servers(self) -> str:
        """Return host:port. The mock writes it as an address, so that no name has to be resolved."""
        listed = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return str(listed.decode()).replace("localhost", "127.0.0.1")

    def create_topic(self, name: str, partitions: int) -> int:
        """Create a topic; returns Kafka's error code (36: it exists)."""
        return int(self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1))

    def down(self) -> int:
        """Close the broker's connections and refuse new ones."""
        return int(self._library.rd_kafka_mock_broker_set_down(self._cluster, BROKER_ID))

    def up(self) -> int:
        """Accept connections again; what was stored is still there."""
        return int(self._library.rd_kafka_mock_broker_set_up(self._cluster, BROKER_ID))

    def push_errors(self, api_key: int, codes: list[int]) -> int:
        """Answer the next requests of one kind with these codes, one each."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(codes), array)
        return 0

    def set_rtt_ms(self, rtt_ms: int) -> int:
        """Delay every answer by this round-trip time."""
        return int(self._library.rd_kafka_mock_broker_set_rtt(self._cluster, ALL_BROKERS, rtt_ms))


def _declare(library: Any) -> None:
    """Give ctypes the signatures that rdkafka.h and rdkafka_mock.h state; pointers would be cut to int otherwise."""
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    numbers = ctypes.POINTER(ctypes.c_int)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_set_controller_id": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_rtt": (number, [pointer, ctypes.c_int32, number]),
        "rd_kafka_mock_push_request_errors_array": (None, [pointer, ctypes.c_int16, ctypes.c_size_t, numbers]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def serve(cluster: MockCluster) -> None:
    """Carry out `[command, argument...]` lines until standard input ends; each is answered by a Kafka error code."""
    commands: dict[str, Callable[..., int]] = {
        "create_topic": cluster.create_topic,
        "down": cluster.down,
        "up": cluster.up,
        "push_errors": cluster.push_errors,
        "set_rtt_ms": cluster.set_rtt_ms,
    }
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        _say(commands[name](*arguments))


def _say(answer: object) -> None:
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


def main() -> int:
    """Start the broker, say where it is, obey. The one argument is the lifetime in seconds."""
    end_after(float(sys.argv[1]))
    try:
        cluster = MockCluster(ctypes.CDLL(str(library_path())))
    except Exit as exc:
        sys.stderr.write(f"{exc}\n")
        return exc.code
    _say(cluster.bootstrap_servers())
    serve(cluster)
    return 0


if __name__ == "__main__":
    sys.exit(main())
