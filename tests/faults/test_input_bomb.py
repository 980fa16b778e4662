"""D19: a batch that is small on the wire and large once it is unpacked.

A consumer's fetch limits count compressed bytes, so nothing on our side bounds what one batch unpacks to; the broker's
`max.message.bytes` (1 MiB by default) does, times the codec's ratio. What is shown: the worker survives it, takes the
records in turn as its window has room, and its memory is a few times the unpacked batch, not a multiple per record.
"""

import re
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.support.deployment import WorkerProcess
from tests.support.stand import TASK, Simulate, Stand, tickets

RECORD_BYTES = 300 << 10
RECORDS = 200
UNPACKED_BYTES = RECORDS * RECORD_BYTES
PACKED_MAX_BYTES = 1 << 20
ROOM = 4
"""Times the unpacked batch: aiokafka holds it whole and copies records out of it; our producer holds what it sends."""


def peak_bytes(worker: WorkerProcess) -> int:
    """Return the highest resident memory so far (VmHWM, proc(5))."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.running.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


async def put_bomb(servers: str, topic: str, codec: str) -> int:
    """Write one batch of large records that are all alike; return its size as sent."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, compression_type=codec, max_batch_size=2 * UNPACKED_BYTES, max_request_size=1 << 20
    )
    await producer.start()
    try:
        batch = producer.create_batch()
        for number in range(RECORDS):
            assert batch.append(key=b"k%d" % number, value=b"x" * RECORD_BYTES, timestamp=None) is not None
        batch.close()
        await (await producer.send_batch(batch, topic, partition=0))
        return len(batch._buffer)
    finally:
        await producer.stop()


@pytest.mark.fault("D19")
@pytest.mark.parametrize("codec", ["gzip", "zstd"])
async def test_a_batch_of_a_thousand_times_its_size_is_survived(real: Stand, simulate: Simulate, codec: str) -> None:
    """Each of its records ends once, the records behind it are answered, and memory stays within a few batches."""
    topic = await real.create(partitions=1)
    with real.worker({TASK: {"input": topic}}, simulate(latency="const:0.01").url) as worker:
        worker.wait_ready()
        before_bytes = peak_bytes(worker)
        packed_bytes = await put_bomb(real.servers, topic, codec)
        await real.put(topic, tickets(50))
        worker.wait_finished(RECORDS + 50)
        grown_bytes = peak_bytes(worker) - before_bytes
        worker.wait_ready()
        assert worker.terminate()[0] == 0
    print(f"{codec}: {packed_bytes} bytes became {UNPACKED_BYTES}, memory grew by {grown_bytes} from {before_bytes}")
    assert packed_bytes < PACKED_MAX_BYTES
    assert grown_bytes < ROOM * UNPACKED_BYTES
    assert not (found := await real.verdict(topic)).broken()
    assert found.by_kind == {"dlq": RECORDS, "enriched": 50}
