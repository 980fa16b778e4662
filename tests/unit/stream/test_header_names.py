"""Record batches with header names that are not UTF-8."""

import struct
from collections.abc import Callable

import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from workers.stream.header_names import Records, tolerate

ENCODERS: dict[int, Callable[[bytes], bytes]] = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}
HEAD_BYTES, LENGTH_AT, ATTRIBUTES_AT = 61, 8, 21


def batch(base_offset: int, names: list[bytes], codec: int = 0) -> bytes:
    """A batch of one record per name; each carries a header of that name, which may be any four bytes."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for number in range(len(names)):
        headers = [("NAME", b"%d" % number), ("null", None)]
        builder.append(number, 1_000 + number, b"k%d" % number, None if number == 1 else b"v%d" % number, headers)
    raw = bytearray(builder.build())
    at = -1
    for name in names:
        at = raw.index(b"NAME", at + 1)
        raw[at : at + 4] = name
    body = bytes(raw[HEAD_BYTES:])
    if codec:
        body = ENCODERS[codec](body)
    struct.pack_into(">q", raw, 0, base_offset)
    struct.pack_into(">i", raw, LENGTH_AT, HEAD_BYTES - 12 + len(body))
    struct.pack_into(">h", raw, ATTRIBUTES_AT, codec)
    return bytes(raw[:HEAD_BYTES]) + body


def read(
    records: Records | MemoryRecords,
) -> list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]:
    """Everything of every record."""
    found = []
    while records.has_next():
        following = records.next_batch()
        assert following is not None
        found += [(one.offset, one.timestamp, one.key, one.value, list(one.headers)) for one in following]
    return found


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_a_name_that_is_no_utf8_costs_only_itself(codec: int) -> None:
    """Its odd bytes become `?`; the record, its neighbours and the batches around it are read as they are."""
    good = [b"aaaa", b"bbbb", b"cccc", "éß".encode()]
    odd = [b"aaaa", b"bb\xff\xfe", b"cccc", "éß".encode()]
    rest = batch(10, [b"dddd"]), batch(24, [b"eeee"])
    expected = read(MemoryRecords(rest[0] + batch(20, good, codec) + rest[1]))
    found = read(Records(rest[0] + batch(20, odd, codec) + rest[1]))
    names = [record[4][0][0] for record in found]
    assert names == ["dddd", "aaaa", "bb??", "cccc", "éß", "eeee"]
    assert [record[:4] for record in found] == [record[:4] for record in expected]
    assert [[header[1] for header in record[4]] for record in found] == [
        [header[1] for header in record[4]] for record in expected
    ]


def test_aiokafka_alone_cannot_read_such_a_batch() -> None:
    """Why this module exists: when this fails, aiokafka has learnt it, and the module can go."""
    with pytest.raises(UnicodeDecodeError):
        read(MemoryRecords(batch(0, [b"\xff\xfe\xfd\xfc"])))


def test_a_batch_keeps_what_aiokafka_asks_of_it() -> None:
    """The fetcher reads offsets, flags and the producer of a batch, and checks its CRC before it iterates."""
    raw = batch(7, [b"aaaa", b"bbbb"])
    ours, theirs = Records(raw).next_batch(), MemoryRecords(raw).next_batch()
    assert ours is not None
    for name in ("base_offset", "next_offset", "is_control_batch", "is_transactional", "producer_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.validate_crc() == theirs.validate_crc()
    assert Records(raw).size_in_bytes() == len(raw)


def test_a_batch_that_was_cut_is_left_for_the_next_fetch() -> None:
    """A fetch may end inside a batch: what is whole is read, the rest is not there."""
    records = Records(batch(0, [b"\xffaaa"]) + batch(1, [b"bbbb"])[:-3])
    assert [record[0] for record in read(records)] == [0]
    assert records.next_batch() is None


def test_the_place_in_aiokafka_is_where_it_was() -> None:
    """The fetcher finds its decoder under the name that `tolerate` replaces."""
    assert fetcher.MemoryRecords in (MemoryRecords, Records)
    tolerate()
    assert fetcher.MemoryRecords is Records
