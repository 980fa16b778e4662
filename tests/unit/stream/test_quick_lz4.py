"""Batches are compressed by LZ4's fast compressor, as Kafka's own clients do; everyone can read them as before."""

import random
import sys

import pytest
from aiokafka import codec
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from workers.stream import quick_lz4
from workers.stream.outgoing import LZ4_BYTES_PER_EXTRA_BYTE, LZ4_FRAME_BYTES

HEADER_BYTES = 61
FLAGS_AT, LINKED_IF_ZERO, CHECKSUM = 4, 0x20, 0x04
"""LZ4 frame format: FLG follows the magic number."""


def values() -> list[bytes]:
    """Return text in which the slow compressor finds more than the fast one."""
    chance = random.Random(11)
    words = [chance.randbytes(4).hex() for _ in range(200)]
    return [" ".join(chance.choices(words, k=80)).encode() for _ in range(20)]


def built() -> bytes:
    """Return a batch as it goes to the broker."""
    batch = BatchBuilder(1 << 20, DefaultRecordBatch.CODEC_LZ4)
    for value in values():
        batch.append(timestamp=1, key=b"k", value=value, headers=[])
    return bytes(batch._build())


def test_the_pinned_clients_batches_are_compressed_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, a new version has another seam, or a level of its own to set."""
    module = sys.modules[DefaultRecordBatchBuilder.__module__]
    monkeypatch.setattr(module, "lz4_encode", codec.lz4_encode)
    slow = built()
    quick_lz4.use()
    quick = built()
    raw = codec.lz4_decode(slow[HEADER_BYTES:])
    assert slow[HEADER_BYTES:] == codec.lz4_encode(raw)
    assert quick[HEADER_BYTES:] == quick_lz4.encode(raw) != slow[HEADER_BYTES:]
    assert len(slow) < len(quick) < 1.1 * len(slow)


def test_what_it_wrote_is_read() -> None:
    """The same frame as before: independent blocks, no checksum of the content."""
    quick_lz4.use()
    batch = built()
    flags = batch[HEADER_BYTES + FLAGS_AT]
    assert flags & LINKED_IF_ZERO
    assert not flags & CHECKSUM
    assert [record.value for record in DefaultRecordBatch(batch)] == values()


@pytest.mark.parametrize("size_bytes", [0, 1, 65_536, 1_000_000])
def test_what_does_not_compress_hardly_grows(size_bytes: int) -> None:
    """`outgoing.size_bytes` counts on it."""
    content = random.Random(1).randbytes(size_bytes)
    written = quick_lz4.encode(content)
    assert bytes(codec.lz4_decode(written)) == content
    assert len(written) <= size_bytes + size_bytes // LZ4_BYTES_PER_EXTRA_BYTE + LZ4_FRAME_BYTES
