"""How much a task may have in flight, and in which order: bounds before the fetch, key chains after it."""

import asyncio
from collections import deque

from workers.records import Passage, Record
from workers.stream.ledger import Ledger

RECORD_OVERHEAD_BYTES = 200
"""What a record costs beside its key and value: objects, ledger entry, chain."""

MIN_PARTITION_SHARE = 32

FETCHES_PER_SHARE = 8
"""A partition is asked for an eighth of its share at a time: a fetch costs as much for one record as for ten. With a
window of four times the slots, one such fetch from each partition fills them. By larger ones the first partitions would
get all slots, and after a rebalance the last be silent until the others have been served."""


class Delivery:
    """One record as delivered once: the permit to finish it belongs to this object, not to the record."""

    __slots__ = ("key", "ledger", "offset", "passage", "record", "size_bytes", "worker")

    def __init__(
        self, record: Record, ledger: Ledger, key: bytes | None, passage: Passage, offset: int | None = None
    ) -> None:
        self.record = record
        self.ledger = ledger
        self.offset = record.offset if offset is None else offset
        """Its offset in the ledger's partition; a record from a retry topic names its input's."""
        self.key = key
        """What orders it: the record's key, b'' for the whole partition, None for nothing."""
        self.passage = passage
        self.size_bytes = len(record.value or b"") + len(record.key or b"") + RECORD_OVERHEAD_BYTES
        if record.headers:
            self.size_bytes += sum(len(name) + len(value or b"") for name, value in record.headers)
        self.worker: asyncio.Task[None] | None = None

    @property
    def gone(self) -> bool:
        """Whether the partition left: the next owner does it."""
        return self.ledger.closed

    def ack(self) -> None:
        """Let the commit point pass this record."""
        self.ledger.finish(self.offset)


class Window:
    """The deliveries of one task that are not finished.

    Bounds are checked before each fetch, so they may be overshot by one fetched batch. A full window simply does not
    fetch: nothing is paused at the broker.
    """

    def __init__(self, *, max_in_flight: int, max_bytes: int, max_span: int) -> None:
        self.max_in_flight = max_in_flight
        self.max_bytes = max_bytes
        self.max_span = max_span
        self.max_per_key = max(1, max_in_flight // 4)
        self.count = 0
        self.bytes = 0
        self.started: set[Delivery] = set()
        self._chains: dict[tuple[Ledger, bytes], deque[Delivery]] = {}
        self._hot: dict[Ledger, int] = {}

    def room(self, ledger: Ledger, partitions: int) -> int:
        """Return how many records to fetch from this partition, one of `partitions` of the task, in its turn.

        Less than one key may hold, since a fetch may be all of one key; and none until it is worth a fetch.
        """
        if self.bytes >= self.max_bytes or ledger.span >= self.max_span or self._hot.get(ledger):
            return 0
        share = max(MIN_PARTITION_SHARE, 2 * self.max_in_flight // max(1, partitions))
        piece = max(1, min(share, self.max_in_flight) // FETCHES_PER_SHARE)
        return piece if min(self.max_in_flight - self.count, share - len(ledger.unfinished)) >= piece else 0

    def enter(self, delivery: Delivery) -> None:
        """Count a delivery in."""
        self.count += 1
        self.bytes += delivery.size_bytes

    def may_start(self, delivery: Delivery) -> bool:
        """Return whether it may run now; else it waits in its key's chain until its predecessor's `leave` gives it."""
        if delivery.key is None:
            return True
        at = (delivery.ledger, delivery.key)
        chain = self._chains.get(at)
        if chain is None:
            self._chains[at] = deque()
            return True
        chain.append(delivery)
        if len(chain) == self.max_per_key:
            self._hot[delivery.ledger] = self._hot.get(delivery.ledger, 0) + 1
        return False

    def leave(self, delivery: Delivery) -> Delivery | None:
        """Count a started or never started delivery out; return the next of its key, which the caller has to run."""
        self.count -= 1
        self.bytes -= delivery.size_bytes
        self.started.discard(delivery)
        if delivery.key is None:
            return None
        at = (delivery.ledger, delivery.key)
        chain = self._chains.get(at)
        if not chain:
            self._chains.pop(at, None)
            return None
        if len(chain) == self.max_per_key:
            self._cool(delivery.ledger)
        return chain.popleft()

    def adopt(self, orphan: Delivery, ledger: Ledger) -> bool:
        """Let a running orphan finish under the new generation's ledger. Return False when its key is taken already."""
        if orphan.key is not None:
            at = (ledger, orphan.key)
            if at in self._chains:
                return False
            self._chains[at] = deque()
        orphan.ledger = ledger
        return True

    def drop_waiting(self, ledger: Ledger) -> int:
        """Empty the chains of a partition that leaves; return how many went. Started ones leave by themselves."""
        dropped = 0
        for at in [at for at in self._chains if at[0] is ledger]:
            for delivery in self._chains.pop(at):
                self.count -= 1
                self.bytes -= delivery.size_bytes
                dropped += 1
        self._hot.pop(ledger, None)
        return dropped

    def waiting(self) -> int:
        """Return how many deliveries wait for a predecessor."""
        return sum(map(len, self._chains.values()))

    def longest_chain(self) -> int:
        """Return how many deliveries wait behind the busiest key."""
        return max(map(len, self._chains.values()), default=0)

    def _cool(self, ledger: Ledger) -> None:
        left = self._hot.get(ledger, 0) - 1
        if left > 0:
            self._hot[ledger] = left
        else:
            self._hot.pop(ledger, None)
