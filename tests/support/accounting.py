"""What became of every input record: read back from the topics, never from the worker."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord

from tests.support.topics import read_all

KINDS = ("enriched", "fallback", "dlq")
"""The topics in which a record ends (a review copy is a copy)."""


def source(record: ConsumerRecord) -> str:
    """Return `<topic>/<partition>/<offset>` of the input record that an output came from."""
    headers = dict(record.headers)
    if (named := headers.get("__penstock.source")) is not None:
        return str(named, "utf-8")
    return "/".join(str(headers[f"__penstock.errors.{part}"], "utf-8") for part in ("topic", "partition", "offset"))


@dataclass
class Account:
    """The sum of one input topic and its outputs."""

    inputs: int
    lost: set[str]
    repeated: int
    order_violations: int
    ends: Counter[str] = field(default_factory=Counter)
    """Distinct records by the kind of topic in which they ended first."""
    in_two_kinds: set[str] = field(default_factory=set)

    def assert_exact(self) -> None:
        """I1, I2, I5 without a crash: each record ended once, in one place, in order."""
        assert not self.lost, sorted(self.lost)[:5]
        assert self.repeated == 0
        assert self.order_violations == 0
        assert not self.in_two_kinds


async def account(bootstrap_servers: str, topic: str, task: str) -> Account:
    """Read an input topic and its outputs to their ends and compare."""
    inputs = {f"{one.topic}/{one.partition}/{one.offset}": one for one in await read_all(bootstrap_servers, topic)}
    seen: Counter[str] = Counter()
    kinds: dict[str, set[str]] = {}
    tombstones: set[str] = {at for at, one in inputs.items() if one.value is None}
    violations = 0
    for kind in KINDS:
        records = await read_all(bootstrap_servers, f"{topic}.{task}.{kind}")
        for record in records:
            at = source(record)
            if at in tombstones and kind == "fallback":
                continue  # a tombstone goes to both on purpose
            seen[at] += 1
            kinds.setdefault(at, set()).add(kind)
        if kind == "enriched":
            violations = order_violations(records)
    return Account(
        inputs=len(inputs),
        lost=set(inputs) - set(seen),
        repeated=sum(seen.values()) - len(seen),
        order_violations=violations,
        ends=Counter(min(found) for found in kinds.values()),
        in_two_kinds={at for at, found in kinds.items() if len(found) > 1},
    )


def order_violations(records: Iterable[ConsumerRecord]) -> int:
    """I5: count, per key, first appearances whose source offset is below an earlier one's."""
    last: dict[bytes, int] = {}
    seen: set[str] = set()
    broken = 0
    for record in records:
        at = source(record)
        if record.key is None or at in seen:
            continue
        seen.add(at)
        offset = int(at.rsplit("/", 1)[1])
        broken += offset < last.get(record.key, -1)
        last[record.key] = max(offset, last.get(record.key, -1))
    return broken


async def ends(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """Return the end offset of each partition, as a reader of committed transactions sees it."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap_servers, enable_auto_commit=False, isolation_level="read_committed"
    )
    await consumer.start()
    try:
        found = await consumer.end_offsets(consumer.assignment())
    finally:
        await consumer.stop()
    return {at.partition: offset for at, offset in found.items()}
