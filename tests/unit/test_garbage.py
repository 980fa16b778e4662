"""What the garbage collector is told."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Iterator

import pytest

from workers import garbage


class Knot:
    """A cycle: only the collector can free it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The collector of this process goes on as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def _turns(times: int) -> list[float]:
    """Let `collect` run until it has slept so often; return how long it meant to."""
    asked_s: list[float] = []

    async def sleep(pause_s: float) -> None:
        asked_s.append(pause_s)
        if len(asked_s) > times:
            raise asyncio.CancelledError

    with contextlib.suppress(asyncio.CancelledError):
        await garbage.collect(sleep)
    return asked_s


async def test_what_died_old_is_freed_within_a_minute() -> None:
    """A cycle that lived through collections, as a Kafka client does, is gone after one period; not before."""
    garbage.spare_what_is_there()
    knot = Knot()
    gc.collect()
    seen = weakref.ref(knot)
    del knot
    assert seen() is not None
    assert await _turns(1) == [60.0, 60.0]
    assert seen() is None


async def test_what_start_up_built_is_never_looked_at() -> None:
    """A cycle from before is spared, and young collections come after 50,000 allocations."""
    knot = Knot()
    seen = weakref.ref(knot)
    garbage.spare_what_is_there()
    del knot
    await _turns(2)
    assert seen() is not None
    assert gc.get_threshold() == (50_000, 50, 100)
