"""The watch over the event loop, with a scripted clock."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from workers import metrics
from workers.loop_lag import PERIOD_S, SAMPLES, WARN_S, watch_loop_lag

ROOT = str(Path(__file__).parents[2])


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
    said = [line for line in lines if line["event"] != "event loop is blocked"]  # the onlooker may be as quick
    assert [(line["event"], line["log_level"], line["delay_s"]) for line in said] == [
        ("event loop was blocked", "warning", 1.5)
    ]


class Enough:
    """Says when a block has lasted long enough: some looks of the onlooker after it was told. It is bounded."""

    def __init__(self, lines: list[Any]) -> None:
        self.lines = lines
        self.ends_at_s = time.monotonic() + 60
        self.told = False

    def __call__(self) -> bool:
        """Whether that is now."""
        if self.lines and not self.told:
            self.told, self.ends_at_s = True, time.monotonic() + 4 * PERIOD_S
        return time.monotonic() >= self.ends_at_s


def _computes(enough: Enough) -> None:
    """Hold the thread by plain Python, as a bad rule would."""
    while not enough():
        pass


def _parses(enough: Enough) -> None:
    """Hold the interpreter itself in calls that let no other thread run."""
    while not enough():
        _one_long_call()


def _one_long_call() -> None:
    sum(range(3_000_000))


@pytest.mark.fault("P4")
@pytest.mark.parametrize(("block", "where"), [(_computes, "_computes"), (_parses, "_one_long_call")])
async def test_where_a_blocked_loop_stands_is_logged_once(block: Callable[[Enough], None], where: str) -> None:
    """A block longer than a second is told while it lasts, with the stack: places and no values; then its length."""
    structlog.reset_defaults()
    with capture_logs() as lines:
        watching = asyncio.create_task(watch_loop_lag())
        await asyncio.sleep(2 * PERIOD_S)
        lines.clear()  # of what the machine held up by itself
        block(Enough(lines))
        while not any(line["event"] == "event loop was blocked" for line in lines):  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(PERIOD_S)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    assert [line["event"] for line in lines[:2]] == ["event loop is blocked", "event loop was blocked"]
    assert WARN_S < lines[0]["for_s"] < lines[1]["delay_s"]
    stack = lines[0]["stack"]
    assert any(place.startswith("unit/test_loop_lag.py:") and place.endswith(f" {where}") for place in stack), stack
    assert not any(place.startswith("/") or ROOT in place or "seconds" in place for place in stack)


async def test_the_onlooker_ends_with_the_watch() -> None:
    """A worker that stops leaves no thread behind that looks at a loop which is gone."""
    watching = asyncio.create_task(watch_loop_lag())
    await asyncio.sleep(0)
    assert _onlookers() == 1
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    async with asyncio.timeout(10):
        while _onlookers():  # noqa: ASYNC110 - a thread's end has no event
            await asyncio.sleep(PERIOD_S)


def _onlookers() -> int:
    return sum(thread.name == "loop-onlooker" for thread in threading.enumerate())
