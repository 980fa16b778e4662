"""The oracle's verdict in numbers, for Penstock and for its peers alike."""

from collections.abc import Sequence
from typing import Any

from aiokafka.structs import ConsumerRecord

from tests.support.commit_sampler import CommitSampler
from tests.support.stage import TASK, Stage
from tests.support.topics import read_all
from topics.spec import Kind
from workers.audit import Rules, judge
from workers.records import Record

KINDS: tuple[Kind, ...] = ("enriched", "fallback", "dlq")
COUNTED = ("lost", "out_of_order", "early")
EXPECTED_OF_A_KILL = ("repeated", "in_two_kinds")


async def judged(stage: Stage, sampler: CommitSampler) -> dict[str, Any]:
    """Read the topics to their ends and count. Values are not looked into: each peer writes its own.

    `early`: records that a sampled commit called finished before they were in the output. Of the bitmaps in commit
    metadata only Penstock's own is read; of a peer's commit the offset is believed, as by any other consumer.
    """
    servers = stage.broker.bootstrap_servers
    inputs = folded(await read_all(servers, stage.topic))
    outputs = {kind: folded(await read_all(servers, f"{stage.topic}.{TASK}.{kind}")) for kind in KINDS}
    verdict = judge(inputs, outputs, rules=Rules(order="key"), samples=sampler.samples, commit=await stage.committed())
    faults = {name: len(found) for name, found in verdict.faults().items()}
    return {
        "lost": len(verdict.lost),
        "done_twice": verdict.repeats,
        "order_violations": len(verdict.out_of_order),
        "early_commits": len(verdict.early),
        "commit_samples": sampler.looks,
        "other_faults": {name: n for name, n in faults.items() if name not in COUNTED + EXPECTED_OF_A_KILL},
    }


def folded(read: Sequence[ConsumerRecord]) -> list[Record]:
    """Return what was read as the oracle takes it."""
    return [
        Record(one.topic, one.partition, one.offset, one.timestamp, one.key, one.value, list(one.headers))
        for one in read
    ]
