"""Which connection is asked next, and when the others are closed."""

import asyncio
from itertools import pairwise

from tests.support.scripted_wire import made
from workers.clock import monotonic_s
from workers.llm.lean.deadlines import GRAIN_S, Sweeper
from workers.llm.lean.idle import Idle
from workers.llm.transport import KEEP_ALIVE_S


async def test_the_freshest_is_asked_and_the_oldest_expire() -> None:
    """Last in, first out; who is idle for `KEEP_ALIVE_S` is closed."""
    idle = Idle()
    old, middle, fresh = [(await made())[0] for _ in range(3)]
    for at_s, connection in ((10.0, old), (11.0, middle), (12.0, fresh)):
        idle.give(connection, at_s)
    assert idle.take(12.0) is fresh
    assert idle.expire(10.0 + KEEP_ALIVE_S) == 11.0 + KEEP_ALIVE_S
    assert [one.is_open for one in (old, middle, fresh)] == [False, True, True]
    assert idle.take(11.0 + KEEP_ALIVE_S) is None
    assert not middle.is_open
    assert idle.expire(99.0) == float("inf")


async def test_one_that_ended_meanwhile_is_passed_over() -> None:
    """The next one that is open is taken."""
    idle = Idle()
    first, second = [(await made())[0] for _ in range(2)]
    idle.give(first, 1.0)
    idle.give(second, 1.0)
    second.eof_received()
    assert idle.take(1.0) is first
    assert len(idle) == 0


async def test_closing_closes_all() -> None:
    """Nothing is left to be taken."""
    idle = Idle()
    connections = [(await made())[0] for _ in range(3)]
    for connection in connections:
        idle.give(connection, 1.0)
    idle.close()
    assert not any(connection.is_open for connection in connections)
    assert idle.take(1.0) is None


async def test_the_sweeper_looks_at_the_earliest_time_and_not_too_often() -> None:
    """A thousand times to look at within its grain are a few looks; none is early."""
    began_s, looks = monotonic_s(), list[float]()
    due_s = [began_s + 0.05 + n / 10_000 for n in range(1_000)]
    done = asyncio.Event()

    def sweep(now_s: float) -> float:
        looks.append(now_s)
        left = [at_s for at_s in due_s if at_s > now_s]
        if not left:
            done.set()
        return min(left, default=float("inf"))

    sweeper = Sweeper(sweep)
    for at_s in (due_s[500], due_s[0], began_s + 3_600):
        sweeper.by(at_s)
    async with asyncio.timeout(10):
        await done.wait()
    assert looks[0] >= due_s[0] - 0.002  # timers of the loop have a grain of their own
    assert all(b - a >= GRAIN_S - 0.002 for a, b in pairwise(looks))
    assert len(looks) <= 2 + 0.1 / GRAIN_S
    sweeper.stop()


async def test_a_stopped_sweeper_does_not_look() -> None:
    """And can be asked again."""
    looks = list[float]()
    sweeper = Sweeper(lambda now_s: looks.append(now_s) or float("inf"))
    sweeper.by(monotonic_s())
    sweeper.stop()
    await asyncio.sleep(0.05)
    assert looks == []
    sweeper.by(monotonic_s())
    async with asyncio.timeout(10):
        while not looks:  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)
