"""Every step of the stop is bounded, whatever a part does with its cancellation."""

import asyncio
import contextlib
import time

import pytest

from workers.stream import worker


class Stubborn:
    """A part that swallows one cancellation, as mode's services do."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.free = asyncio.Event()

    async def close(self) -> None:
        """Go on until it is free."""
        while not self.free.is_set():
            try:
                await self.free.wait()
            except asyncio.CancelledError:
                self.cancelled += 1


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLOSE_S", 0.05)


async def test_a_part_that_does_not_close_is_left_behind() -> None:
    """I9: neither its hanging nor its deafness holds up the exit."""
    part = Stubborn()
    began_s = time.monotonic()
    await worker._closed("part", part.close)
    assert time.monotonic() - began_s < 5
    await asyncio.sleep(0)
    assert part.cancelled == 1
    part.free.set()


async def test_a_part_that_fails_to_close_is_only_logged() -> None:
    """The other parts close all the same."""

    async def broken() -> None:
        raise ValueError

    await worker._closed("part", broken)


@pytest.mark.fault("O10")
async def test_a_part_that_ends_cancelled_ends_nothing_else() -> None:
    """O10: aiokafka's consumer, closed while its broker is away, raises the cancellation of a task of its own."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    await worker._closed("part", cancelled)


@pytest.mark.fault("P1")
async def test_a_start_that_does_not_end_is_left_behind() -> None:
    """P1: SIGTERM while the worker starts: what hangs in the start does not hang the stop."""
    part = Stubborn()
    starting: asyncio.Future[object] = asyncio.ensure_future(part.close())
    await asyncio.sleep(0)
    began_s = time.monotonic()
    await worker._cancelled(starting)
    assert time.monotonic() - began_s < 5
    part.free.set()
    with contextlib.suppress(asyncio.CancelledError):
        await starting


async def test_a_start_that_fails_while_it_is_stopped_raises_nothing() -> None:
    """Its error comes too late to matter, and is no unhandled one."""

    async def failing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError

    starting: asyncio.Future[object] = asyncio.ensure_future(failing())
    await asyncio.sleep(0)
    await worker._cancelled(starting)
    assert isinstance(starting.exception(), ValueError)
