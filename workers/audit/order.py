"""Order: within one output topic a key's records first appear in the order of their offsets, all in one partition."""

from collections.abc import Iterator
from typing import Literal

from topics.spec import Kind
from workers.audit.partition import NO_KEY, Partition


def broken_order(
    kind: Kind, output: int, partition: Partition, place: int, *, by_partition: bool
) -> Iterator[Literal["out_of_order", "key_moved"]]:
    """Yield what is wrong with the first appearance of a record; keys are those of one input partition."""
    key = partition.keys[place]
    if key != NO_KEY:
        home = partition.home_of_key[kind]
        if home[key] not in (-1, output):
            yield "key_moved"
        home[key] = output
    elif not by_partition:
        return
    last, scope = partition.last_of_key[kind], 0 if by_partition else key
    offset = partition.offsets[place]
    if offset < last[scope]:
        yield "out_of_order"
    last[scope] = max(offset, last[scope])
