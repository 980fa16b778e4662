"""Header names that are not UTF-8: they cost nobody anything but themselves.

Kafka takes any bytes as a header's name, and producers in C can write them. aiokafka's decoder raises
UnicodeDecodeError for the whole batch, at each fetch anew: one such record would end its partition, neighbours
included. Here the odd bytes of the name become `?`; key, value and everything else of the record stay as they are.

aiokafka has no seam for this, so one name inside its fetcher is replaced; the version is pinned, and tests hold it.
"""

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

from workers.log import get_logger

_BATCH = struct.Struct(">qiibIhiqqqhii")
"""Header of a record batch, magic 2 (KIP-98): base offset, length of what follows, leader epoch, magic, CRC,
attributes, last offset delta, two timestamps, producer id, its epoch, base sequence, number of records."""

_UNCOUNTED_BYTES = 12
"""What the length does not count: the base offset, and itself."""

_CODEC_MASK = 0x07
_CODECS = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
_ATTRIBUTES, _RECORDS = 5, 12

log = get_logger(__name__)


def tolerate() -> None:
    """Let consumers of this process read such records, from now on."""
    fetcher.MemoryRecords = Records


class Records:
    """What aiokafka calls MemoryRecords: the batches of a fetched partition."""

    def __init__(self, fetched: bytes) -> None:
        self._records = MemoryRecords(fetched)
        self._fetched = memoryview(fetched)
        self.size_in_bytes = self._records.size_in_bytes
        self.has_next = self._records.has_next

    def next_batch(self) -> "Batch | None":
        """Return the next batch, None after the last whole one."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        size = _UNCOUNTED_BYTES + struct.unpack_from(">i", self._fetched, 8)[0]
        raw, self._fetched = self._fetched[:size], self._fetched[size:]
        return Batch(batch, raw)


class Batch:
    """A batch as aiokafka decodes it, decoded anew from its bytes when a header's name stops that."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        given = 0
        try:
            for record in self._batch:
                yield record
                given += 1
        except UnicodeDecodeError:
            log.warning("header_name_not_utf8", base_offset=self._batch.base_offset)
            for number, record in enumerate(DefaultRecordBatch(repaired(self._raw))):
                if number >= given:
                    yield record


def repaired(raw: bytes | memoryview) -> bytes:
    """Return the batch uncompressed, with `?` in header names that are not UTF-8. Its CRC is that of before."""
    head = list(_BATCH.unpack_from(raw))
    packed = bytes(raw[_BATCH.size :])
    codec = _CODECS.get(head[_ATTRIBUTES] & _CODEC_MASK)
    body = bytearray(codec(packed) if codec else packed)
    position = 0
    for _ in range(head[_RECORDS]):
        position = _repair_record(body, position)
    head[1] = _BATCH.size - _UNCOUNTED_BYTES + len(body)
    head[_ATTRIBUTES] &= ~_CODEC_MASK
    return _BATCH.pack(*head) + bytes(body)


def _repair_record(body: bytearray, position: int) -> int:
    """Mend the header names of the record at `position`; return where the next record begins."""
    length, position = decode_varint(body, position)
    ends = position + int(length)
    position += 1  # attributes
    for _ in range(2):  # timestamp delta, offset delta
        _, position = decode_varint(body, position)
    for _ in range(2):  # key, value
        _, position = _sized(body, position)
    headers, position = decode_varint(body, position)
    for _ in range(headers):
        name, position = _sized(body, position)
        if not _is_utf8(body[name]):
            body[name] = bytes(octet if octet < 0x80 else ord("?") for octet in body[name])  # noqa: PLR2004 - ASCII
        _, position = _sized(body, position)
    return ends


def _sized(body: bytearray, position: int) -> tuple[slice, int]:
    """Return where the bytes lie that a varint length precedes (-1: null), and where they end."""
    length, begins = decode_varint(body, position)
    ends = begins + max(0, int(length))
    return slice(begins, ends), ends


def _is_utf8(name: bytes | bytearray) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
