"""The window: bounds, order per key, and that nothing leaks through revokes."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from workers.records import Passage, Record
from workers.stream.ledger import Ledger
from workers.stream.window import Delivery, Window

KEYS = st.sampled_from([None, b"a", b"b", b"c"])


def deliver(window: Window, ledger: Ledger, key: bytes | None) -> Delivery:
    """Take the ledger's next offset into the window."""
    offset = ledger.next_offset
    ledger.take(offset, 0)
    delivery = Delivery(Record("in", ledger.partition, offset, 0, key, b"v", ()), ledger, key, Passage(1.0))
    window.enter(delivery)
    return delivery


class WindowLife(RuleBasedStateMachine):
    """Two partitions deliver, run, finish and are revoked in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(max_in_flight=24, max_bytes=1 << 20, max_span=100)
        self.ledgers = [Ledger("in", 0, 0), Ledger("in", 1, 0)]
        self.running: list[Delivery] = []
        self.waiting: set[Delivery] = set()
        self.last: dict[tuple[Ledger, bytes], int] = {}

    def run(self, delivery: Delivery) -> None:
        """Start a delivery, which must be its key's next."""
        if delivery.key is not None:
            at = (delivery.ledger, delivery.key)
            assert self.last.get(at, -1) < delivery.record.offset
            assert all((other.ledger, other.key) != at for other in self.running), "two of one key at once"
            self.last[at] = delivery.record.offset
        self.window.started.add(delivery)
        self.running.append(delivery)

    @rule(number=st.integers(0, 1), keys=st.lists(KEYS, min_size=1, max_size=40))
    def fetch(self, number: int, keys: list[bytes | None]) -> None:
        """A batch as large as the room allows is delivered."""
        ledger = self.ledgers[number]
        room = self.window.room(ledger, 2)
        for key in keys[:room]:
            delivery = deliver(self.window, ledger, key)
            if self.window.may_start(delivery):
                self.run(delivery)
            else:
                self.waiting.add(delivery)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), acked=st.booleans())
    def end(self, data: st.DataObject, acked: bool) -> None:  # noqa: FBT001
        """A running delivery ends; its successor is released by it and by nothing else."""
        delivery = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if acked:
            delivery.ack()
        successor = self.window.leave(delivery)
        if successor is not None:
            self.waiting.discard(successor)
            self.run(successor)

    @rule(number=st.integers(0, 1))
    def revoke(self, number: int) -> None:
        """A partition leaves: what waits goes at once, what runs leaves when it ends, and a new ledger begins."""
        old = self.ledgers[number]
        dropped = self.window.drop_waiting(old)
        gone = {delivery for delivery in self.waiting if delivery.ledger is old}
        assert dropped == len(gone)
        self.waiting -= gone
        old.closed = True
        self.ledgers[number] = Ledger("in", number, old.position)

    @invariant()
    def counts_are_true(self) -> None:
        """I8: the counters equal what is really there, so that no revoke leaks room."""
        assert self.window.count == len(self.running) + len(self.waiting)
        assert self.window.waiting() == len(self.waiting)
        assert self.window.bytes == sum(one.size_bytes for one in [*self.running, *self.waiting])
        assert self.window.count <= 24 + 1


TestWindowLife = WindowLife.TestCase


@given(count=st.integers(1, 60))
def test_a_hot_key_stops_only_its_partition(count: int) -> None:
    """One key takes at most a quarter of the window; beyond it its partition gets no room, and the others go on."""
    window = Window(max_in_flight=40, max_bytes=1 << 20, max_span=1000)
    hot, cool = Ledger("in", 0, 0), Ledger("in", 1, 0)
    entered = 0
    first: Delivery | None = None
    for _ in range(count):
        if window.room(hot, 2) == 0:
            break
        delivery = deliver(window, hot, b"hot")
        if window.may_start(delivery):
            first = delivery
        entered += 1
    assert entered <= window.max_per_key + 1
    assert window.room(cool, 2) > 0
    while first is not None:
        first.ack()
        first = window.leave(first)
    assert window.count == 0
    assert window.room(hot, 2) > 0


def test_an_adopted_orphan_keeps_its_key() -> None:
    """A redelivered key waits for the orphan that still runs: order holds over a rebalance."""
    window = Window(max_in_flight=40, max_bytes=1 << 20, max_span=1000)
    old = Ledger("in", 0, 0)
    orphan = deliver(window, old, b"k")
    assert window.may_start(orphan)
    window.started.add(orphan)
    window.drop_waiting(old)
    old.closed = True
    new = Ledger("in", 0, 0)
    new.take(0, 0)
    assert orphan.gone
    assert window.adopt(orphan, new)
    assert not orphan.gone
    successor = deliver(window, new, b"k")
    assert not window.may_start(successor)
    orphan.ack()
    assert window.leave(orphan) is successor
    assert new.position == 1


def test_span_bounds_one_partition() -> None:
    """Past `max_span` offsets beyond its oldest unfinished record a partition stops, whatever room there is."""
    window = Window(max_in_flight=1000, max_bytes=1 << 20, max_span=10)
    ledger = Ledger("in", 0, 0)
    slow = deliver(window, ledger, None)
    while window.room(ledger, 1) > 0:
        quick = deliver(window, ledger, None)
        quick.ack()
        window.leave(quick)
    assert ledger.span == 10
    slow.ack()
    window.leave(slow)
    assert window.room(ledger, 1) > 0


def test_headers_count_as_bytes_in_flight() -> None:
    """D13: a mebibyte of headers is a mebibyte held."""
    headers = (("large", b"x" * 1_000), ("null", None))
    plain = Delivery(Record("in", 0, 0, 0, b"k", b"v", ()), Ledger("in", 0, 0), None, Passage(1.0))
    heavy = Delivery(Record("in", 0, 1, 0, b"k", b"v", headers), Ledger("in", 0, 0), None, Passage(1.0))
    assert heavy.size_bytes == plain.size_bytes + 1_009
