"""The garbage collector: what start-up built is spared, and cycles are collected by the clock as well.

Counting allocations alone, as Python does, would leave a dead Kafka client where it is for days: it has lived through a
young collection, nearly everything else here is freed without the collector, and so an older one hardly ever comes.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable

COLLECT_EVERY_S = 60.0


def spare_what_is_there() -> None:
    """Never look at the present objects again, and count further for young ones: 15-23 % of the CPU (bench.md)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


async def collect(sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Collect all that is not spared once a minute, for ever: some milliseconds with a thousand records in flight."""
    while True:
        await sleep(COLLECT_EVERY_S)
        gc.collect()
