"""The records of one input partition, folded: digests instead of bodies, and what was found of each in the outputs."""

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable

from topics import deadletters, requests
from topics.headers import PREFIX, Header, capped, writable_name
from topics.spec import KINDS, Kind
from workers.records import Record

TOMBSTONE = -1
NO_KEY = -1
UNSEEN = (1 << 31) - 1
COUNTED_AT_MOST = 255


def digest(body: bytes) -> int:
    """Return 64 bits of sha256: a stub carries the whole of it, and one pair in 1.8e19 is alike by chance."""
    return int.from_bytes(hashlib.sha256(body).digest()[:8])


def digest_of_headers(headers: Iterable[Header]) -> int:
    """Return 64 bits that tell apart names, values, null values, and the order."""
    return digest(repr([(name, value) for name, value in headers]).encode("utf-8", "surrogatepass"))


NO_HEADERS = digest_of_headers([])


class Partition:
    """Parallel arrays, one place per record in the order of offsets, and per key the state of its order."""

    def __init__(self, *, erased_twice: bool) -> None:
        self.begin = 0
        self.end: int | None = None
        self.erased_twice = erased_twice
        """Whether a tombstone has to be on enriched and on fallback."""
        self.offsets = array("q")
        self.sizes = array("q")
        self.values = array("Q")
        self.headers = array("Q")
        self.keys = array("i")
        self.key_digests = array("Q")
        self.capped_headers: dict[int, int] = {}
        """Of the few records whose headers a stub cannot hold all."""
        self.replayed: set[int] = set()
        self.secret: set[int] = set()
        """Records that hold a canary themselves."""
        self.counts: dict[Kind, bytearray] = {kind: bytearray() for kind in KINDS}
        self.flagged = bytearray()
        self.seen_from: dict[Kind, array[int]] = {kind: array("i") for kind in KINDS}
        """Index of the first sample that shows an output of this kind."""
        self.deferred: dict[int, int] = {}
        """Records that are in the retry topic, and the index of the first sample that shows them there."""
        self.waiting: set[int] = set()
        """Those of them that are not finished there."""
        self.last_of_key: dict[Kind, array[int]] = {}
        self.home_of_key: dict[Kind, array[int]] = {}
        self._key_places: dict[int, int] = {}

    def add(self, record: Record) -> int:
        """Fold an input record; offsets rise. Return its place."""
        place = len(self.offsets)
        self.offsets.append(record.offset)
        self.sizes.append(TOMBSTONE if record.value is None else len(record.value))
        self.values.append(digest(record.value or b""))
        self.headers.append(self._digest_headers(place, record) if record.headers else NO_HEADERS)
        self.keys.append(NO_KEY if record.key is None else self._key_place(digest(record.key)))
        return place

    def _key_place(self, key: int) -> int:
        place = self._key_places.setdefault(key, len(self.key_digests))
        if place == len(self.key_digests):
            self.key_digests.append(key)
        return place

    def _digest_headers(self, place: int, record: Record) -> int:
        """Digest the headers that a dead letter of the record has to carry."""
        kept = [(writable_name(name), value) for name, value in record.headers if not name.startswith(PREFIX)]
        lineage = requests.encode(requests.decode(record.headers))
        if len(short := capped(kept)) < len(kept):
            self.capped_headers[place] = digest_of_headers([*short, *lineage])
        return digest_of_headers([*kept, *lineage])

    def seal(self) -> None:
        """Make room for what the outputs say: every input record is known."""
        self._key_places.clear()
        size, keys = len(self.offsets), max(1, len(self.key_digests))
        self.flagged = bytearray(size)
        for kind in KINDS:
            self.counts[kind] = bytearray(size)
            self.seen_from[kind] = array("i", [UNSEEN]) * size
            self.last_of_key[kind] = array("q", [-1]) * keys
            self.home_of_key[kind] = array("i", [-1]) * keys

    def place_of(self, offset: int) -> int | None:
        """Return where a record is, None when the partition has none at that offset."""
        place = bisect_left(self.offsets, offset)
        return place if place < len(self.offsets) and self.offsets[place] == offset else None

    def is_erased(self, place: int) -> bool:
        """Return whether it is a tombstone that has to be on two topics."""
        return self.erased_twice and self.sizes[place] == TOMBSTONE

    def has_key(self, place: int, key: bytes | None) -> bool:
        """Return whether that is the record's key."""
        own = self.keys[place]
        return (own == NO_KEY) if key is None else (own != NO_KEY and self.key_digests[own] == digest(key))

    def has_value(self, place: int, value: bytes | None) -> bool:
        """Return whether that is the record's value."""
        if value is None:
            return self.sizes[place] == TOMBSTONE
        return self.sizes[place] == len(value) and self.values[place] == digest(value)

    def has_stub(self, place: int, stub: deadletters.Stub) -> bool:
        """Return whether the stub stands for the record's value."""
        size = max(0, self.sizes[place])  # of a tombstone: that of nothing
        return size == stub.size_bytes and stub.sha256[:16] == f"{self.values[place]:016x}"

    def has_headers(self, place: int, headers: Iterable[Header], *, stub: bool) -> bool:
        """Return whether these are the headers that a dead letter of the record carries."""
        own = self.capped_headers.get(place, self.headers[place]) if stub else self.headers[place]
        return own == digest_of_headers(headers)

    def note(self, kind: Kind, place: int, seen_from: int) -> int:
        """Count an output; return how many of this kind there were before."""
        before = self.counts[kind][place]
        self.counts[kind][place] = min(COUNTED_AT_MOST, before + 1)
        self.seen_from[kind][place] = min(self.seen_from[kind][place], seen_from)
        return before

    def note_deferred(self, place: int, seen_from: int, *, waits: bool) -> None:
        """Note that the record is in the retry topic (which may be more than once)."""
        self.deferred[place] = min(self.deferred.get(place, UNSEEN), seen_from)
        if waits:
            self.waiting.add(place)
