"""The watch over the event loop, with a scripted clock."""

import asyncio
import contextlib
from typing import Any

import structlog
from structlog.testing import capture_logs

from workers import metrics
from workers.loop_lag import PERIOD_S, SAMPLES, watch_loop_lag


class LateLoop:
    """A clock, and a sleep that returns as late as the script says."""

    def __init__(self, delays_s: list[float]) -> None:
        self.delays_s = delays_s
        self.now_s = 5.0
        self.seen_s: list[float] = []

    def clock(self) -> float:
        """Seconds."""
        return self.now_s

    async def sleep(self, duration_s: float) -> None:
        """Return late, or end the watch when the script is over."""
        self.seen_s.append(metrics.LOOP_LAG_S._value.get())
        if not self.delays_s:
            raise asyncio.CancelledError
        self.now_s += duration_s + self.delays_s.pop(0)


async def _watch(delays_s: list[float]) -> tuple[list[float], list[Any]]:
    loop = LateLoop(delays_s)
    structlog.reset_defaults()
    with capture_logs() as lines, contextlib.suppress(asyncio.CancelledError):
        await watch_loop_lag(loop.clock, loop.sleep)
    return [round(value, 6) for value in loop.seen_s[1:]], list(lines)


async def test_the_gauge_holds_the_longest_delay_of_the_last_samples() -> None:
    """A delay stays in the gauge for 5 s of samples, then it is forgotten."""
    seen_s, lines = await _watch([0.0, 0.4, 0.2] + [0.0] * SAMPLES)
    assert seen_s[:3] == [0.0, 0.4, 0.4]
    assert seen_s[SAMPLES] == 0.4
    assert seen_s[SAMPLES + 1] == 0.2
    assert seen_s[SAMPLES + 2] == 0.0
    assert lines == []


async def test_a_second_of_delay_is_logged() -> None:
    """A blocked loop is worth a warning with its length."""
    _, lines = await _watch([1.0 - PERIOD_S, 1.5])
    assert [(line["event"], line["log_level"], line["delay_s"]) for line in lines] == [
        ("event loop was blocked", "warning", 1.5)
    ]
