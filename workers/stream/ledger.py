"""Offsets of one partition in one generation: what was delivered, what is unfinished, what may be committed."""

from collections.abc import Iterable

FINISHED_PAST_MAX = 131_072
"""Offsets past the commit point that a bitmap covers. A compacted log may have a gap of millions, whose bits would cost
the next owner a second and hundreds of megabytes; what lies beyond is done twice after a crash, never lost."""


class Ledger:
    """The offsets of one partition, from its assignment until it is revoked.

    Only offsets that were *delivered* count, so that gaps (compaction, transaction markers) need no knowledge: an
    offset below `next_offset` that is not unfinished is either finished or does not exist.

    `skip` holds offsets that the commit metadata of a predecessor calls finished and that have not been met again.
    Every finish names its ledger: a late one on a closed ledger changes nothing (aiokafka would commit it under the
    current generation, kafka.md (c)).
    """

    __slots__ = ("closed", "leaving", "next_offset", "partition", "skip", "topic", "unfinished")

    def __init__(self, topic: str, partition: int, next_offset: int, skip: Iterable[int] = ()) -> None:
        self.topic = topic
        self.partition = partition
        self.next_offset = next_offset
        self.skip = {offset for offset in skip if offset >= next_offset}
        self.unfinished: dict[int, int] = {}
        """Offset -> Kafka timestamp (ms), in delivery order."""
        self.leaving = False
        """Nothing of it starts any more; what is busy may still finish."""
        self.closed = False
        """Nothing of it is sent or acked any more."""

    @property
    def position(self) -> int:
        """The offset to commit: the first unfinished one, else the next to be read."""
        return next(iter(self.unfinished), self.next_offset)

    @property
    def span(self) -> int:
        """Offsets between the commit point and the next to be read."""
        return self.next_offset - self.position

    def take(self, offset: int, timestamp_ms: int) -> bool:
        """Note a delivery; offsets only rise. Return False when it was finished before: it is not to be done again."""
        self.next_offset = offset + 1
        if offset in self.skip:
            self.skip.discard(offset)
            return False
        self.unfinished[offset] = timestamp_ms
        return True

    def finish(self, offset: int) -> None:
        """Note that everything produced for this offset is confirmed. Without effect once closed."""
        if not self.closed:
            self.unfinished.pop(offset, None)

    def pass_gap(self, position: int) -> None:
        """Move an empty ledger over a gap that ends the partition for now; `position` is the consumer's own."""
        if not self.unfinished and position > self.next_offset:
            self.next_offset = position

    def finished_past(self) -> bytearray:
        """Return a bitmap whose bit i (little-endian) says that offset `position + i` need not be done again.

        Offsets that do not exist count as finished: they are never delivered. It ends after `FINISHED_PAST_MAX`.
        """
        base = self.position
        ahead = [offset for offset in self.skip if offset >= self.next_offset]  # one that is gone is never met again
        length = min(FINISHED_PAST_MAX, max(ahead, default=self.next_offset - 1) + 1 - base)
        bits = bytearray((length + 7) // 8)
        known = min(length, self.next_offset - base)
        if known:
            bits[: (known + 7) // 8] = ((1 << known) - 1).to_bytes((known + 7) // 8, "little")
        for index in (offset - base for offset in self.unfinished):
            if index < length:
                bits[index >> 3] &= ~(1 << (index & 7))
        for index in (offset - base for offset in ahead):
            if index < length:
                bits[index >> 3] |= 1 << (index & 7)
        return bits

    def gap(self) -> int:
        """Return how many delivered offsets past the commit point are finished (or do not exist)."""
        return self.span - len(self.unfinished)
