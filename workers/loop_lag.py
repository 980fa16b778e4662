"""Watches how late the event loop is: everything in this process shares it, heartbeats to Kafka included."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from workers import metrics
from workers.clock import monotonic_s
from workers.log import get_logger

PERIOD_S = 0.1
SAMPLES = 50
"""5 s of them while the loop is on time."""
WARN_S = 1.0

_log = get_logger(__name__)


async def watch_loop_lag(
    clock: Callable[[], float] = monotonic_s, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Sample until cancelled: the gauge holds the longest delay of the last samples; a long one is logged."""
    delays_s: deque[float] = deque(maxlen=SAMPLES)
    while True:
        began_s = clock()
        await sleep(PERIOD_S)
        delay_s = max(0.0, clock() - began_s - PERIOD_S)
        delays_s.append(delay_s)
        metrics.LOOP_LAG_S.set(max(delays_s))
        if delay_s > WARN_S:
            _log.warning("event loop was blocked", delay_s=round(delay_s, 3))
