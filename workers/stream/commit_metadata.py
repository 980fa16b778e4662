"""Finished offsets past the commit point, as text in the commit's metadata: a crash repeats almost no paid call.

Format, ASCII: `p2:<base offset>:<8 hex of sha256(cluster id, topic, partition)>:<base85(crc32, deflate(bitmap))>`.
Tools that mirror consumer groups copy metadata to other offsets and clusters; the base and the hash make such a copy
worthless. A bit too many would lose a record, so damage has to be noticed: zlib's own Adler-32 (`p1`) missed one in a
hundred changes of a character of some bitmaps, and is missing itself from a text that was cut.
"""

import base64
import hashlib
import zlib

from workers.stream.ledger import FINISHED_PAST_MAX

VERSION = "p2"
MAX_CHARS = 3_900
"""Kafka's `offset.metadata.max.bytes` is 4,096 by default, counted in characters (kafka.md (b))."""

_MAX_BITMAP_BYTES = FINISHED_PAST_MAX // 8
_CRC_BYTES = 4
_RAW_DEFLATE = -zlib.MAX_WBITS


def fingerprint(cluster_id: str, topic: str, partition: int) -> str:
    """Return the 8 characters that tie a bitmap to its partition."""
    return hashlib.sha256(f"{cluster_id}\n{topic}\n{partition}".encode()).hexdigest()[:8]


def encode(base: int, bits: bytes | bytearray, mark: str, max_chars: int = MAX_CHARS) -> str:
    """Return the metadata for a bitmap (bit i: offset `base + i` is finished), '' when no bit is set.

    A bitmap that does not fit loses its upper half until it does: those records may be done twice, never lost.
    """
    bits = bytes(bits).rstrip(b"\0")
    while bits:
        text = f"{VERSION}:{base}:{mark}:{base64.b85encode(_packed(bits)).decode()}"
        if len(text) <= max_chars:
            return text
        bits = bits[: len(bits) // 2].rstrip(b"\0")
    return ""


class Ignored(ValueError):
    """Metadata that must not be believed. `reason` is a label: foreign, version, base, partition, damaged."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(committed: int, text: str, mark: str) -> set[int]:
    """Return the finished offsets past `committed`; an empty text gives none.

    Raises:
        Ignored: the text is not ours, or not for this offset, partition and cluster.
    """
    if not text:
        return set()
    version, _, rest = text.partition(":")
    if version != VERSION:
        raise Ignored("version" if version[:1] == "p" and version[1:].isdigit() else "foreign")
    base, _, rest = rest.partition(":")
    found, _, body = rest.partition(":")
    if base != str(committed):
        raise Ignored("base")
    if found != mark:
        raise Ignored("partition")
    bits = _unpacked(body)
    return {
        committed + (index << 3) + bit
        for index, octet in enumerate(bits)
        if octet
        for bit in range(8)
        if octet >> bit & 1
    }


def _packed(bits: bytes) -> bytes:
    return zlib.crc32(bits).to_bytes(_CRC_BYTES, "big") + zlib.compress(bits, 6, _RAW_DEFLATE)


def _unpacked(body: str) -> bytes:
    """Return the bitmap that was written, whole.

    Raises:
        Ignored: `damaged`.
    """
    try:
        packed = base64.b85decode(body)
        bits = zlib.decompressobj(_RAW_DEFLATE).decompress(packed[_CRC_BYTES:], _MAX_BITMAP_BYTES + 1)
    except (ValueError, zlib.error) as exc:
        raise Ignored("damaged") from exc
    if len(bits) > _MAX_BITMAP_BYTES or zlib.crc32(bits).to_bytes(_CRC_BYTES, "big") != packed[:_CRC_BYTES]:
        raise Ignored("damaged")
    return bits
