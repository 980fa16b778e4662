"""Who is next: first come, first served, those that have begun before those that have not, a failed trial last."""

import asyncio
import math
from collections.abc import Iterator

import pytest

from workers.errors import BreakerOpen, Busy, DeadlineOver, Misconfigured, PenstockError, ServerFault, Stale
from workers.llm.breaker import Breaker
from workers.llm.endpoint import Endpoint, Grant
from workers.llm.line import Line, Waiter
from workers.records import Passage
from workers.settings.servers import Breaker as BreakerSettings

Verdict = Grant | PenstockError | None


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that makes futures and never runs."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def line_of(*slots: int) -> Line:
    """Return a line over endpoints with these slots."""
    settings = BreakerSettings(reset_timeout_s=1.0)
    return Line([Endpoint(index, f"m{index}", n, Breaker(settings, lambda *_: None)) for index, n in enumerate(slots)])


def taken(line: Line, now_s: float = 0.0, failed: tuple[Endpoint, ...] = ()) -> Grant:
    """Take a slot that must be free."""
    grant = line.take(failed, now_s)
    assert grant is not None
    return grant


class Queue:
    """Lines waiters up and reads what became of them."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self.line = line
        self.loop = loop

    def add(
        self,
        now_s: float = 0.0,
        *,
        wait_s: float = 0.0,
        begun: bool = False,
        last: bool = False,
        failed: tuple[Endpoint, ...] = (),
    ) -> Waiter:
        """Line one up."""
        passage = Passage(5.0)
        if begun:
            passage.begin(now_s)
        waiter = Waiter(self.loop.create_future(), passage, wait_s, now_s, failed, last)
        self.line.join(waiter, now_s)
        return waiter


def verdict(waiter: Waiter) -> Verdict:
    """Return what a waiter got so far."""
    return waiter.future.result() if waiter.future.done() else None


def let_in(waiter: Waiter) -> Grant:
    """Return the grant that a waiter must have."""
    grant = verdict(waiter)
    assert isinstance(grant, Grant)
    return grant


def test_a_free_slot_goes_to_the_oldest(loop: asyncio.AbstractEventLoop) -> None:
    """Slots are handed over in the order of arrival, and a newcomer cannot take one from under the line."""
    line = line_of(1)
    queue = Queue(line, loop)
    running = taken(line)
    first, second = queue.add(), queue.add()
    line.settle(running, None, 1.0)
    assert verdict(second) is None
    assert line.take(None, 1.0) is None
    line.settle(let_in(first), None, 2.0)
    assert let_in(second)


def test_nobody_overtakes_while_the_timer_is_late(loop: asyncio.AbstractEventLoop) -> None:
    """When a cool-down is over and the line has not been advanced yet, a newcomer still finds it in use."""
    line = line_of(2)
    line.settle(taken(line), Busy("429", 1.0), 0.0)
    waiter = Queue(line, loop).add(0.5)
    assert line.take(None, 1.5) is None
    line.advance(1.5)
    assert let_in(waiter)


def test_begun_before_fresh_and_a_failed_trial_last(loop: asyncio.AbstractEventLoop) -> None:
    """A record whose deadline runs is served before one that has not begun; a failed trial waits behind all."""
    line = line_of(1)
    queue = Queue(line, loop)
    running = taken(line)
    trial, fresh, begun = queue.add(begun=True, last=True), queue.add(), queue.add(begun=True)
    order = []
    for _ in range(3):
        line.settle(running, None, 1.0)
        running = next(let_in(w) for w in (trial, fresh, begun) if w.future.done() and w not in order)
        order.append(next(w for w in (trial, fresh, begun) if w.grant is running))
    assert order == [begun, trial, fresh]  # behind those that were there when it came: it came before `fresh`


def test_the_least_loaded_endpoint_is_asked_and_the_failed_one_avoided() -> None:
    """The smallest share of slots in use wins; an endpoint that failed the call only when no other works."""
    line = line_of(4, 2)
    taken(line)
    assert taken(line).endpoint.index == 1
    first = line.endpoints[0]
    assert taken(line, failed=(first,)).endpoint.index == 1
    assert line.take((first,), 0.0) is None
    assert taken(line, failed=tuple(line.endpoints)).endpoint.index == 0


def test_who_waits_for_another_endpoint_holds_up_nobody(loop: asyncio.AbstractEventLoop) -> None:
    """Slots that it must not take go to those behind it; when the other endpoint cools down it takes what there is."""
    line = line_of(2, 1)
    queue = Queue(line, loop)
    first, second = line.endpoints
    first.cool_until_s = -1.0
    taken(line, failed=(first,))
    retry = queue.add(begun=True, failed=(first,))
    assert not retry.future.done()
    assert line.wake_at_s == 5.0  # no turning round for a slot that it must not take
    behind = queue.add()
    assert let_in(behind).endpoint is first
    second.cool_until_s = 5.0
    line.advance(1.0)
    assert let_in(retry).endpoint is first


def test_open_breakers_turn_away_who_does_not_hold(loop: asyncio.AbstractEventLoop) -> None:
    """When the last breaker opens, waiters with wait_s 0 leave at once, others when wait_s is over, holders never."""
    line = line_of(1)
    queue = Queue(line, loop)
    running = taken(line)
    going, patient, holding = queue.add(), queue.add(wait_s=0.5), queue.add(wait_s=math.inf)
    line.settle(running, Misconfigured("401 from m0"), 10.0)
    assert isinstance(verdict(going), Misconfigured)
    assert line.wake_at_s == 10.5
    line.advance(10.5)
    assert isinstance(verdict(patient), Misconfigured)
    line.advance(11.0)
    assert let_in(holding).trial


def test_trials_one_at_a_time_and_the_poisonous_one_moves_back(loop: asyncio.AbstractEventLoop) -> None:
    """After each failed trial the next in line is the trial; whoever failed waits at the end."""
    line = line_of(4)
    queue = Queue(line, loop)
    line.settle(taken(line), Misconfigured("401"), 0.0)
    first, second = queue.add(wait_s=math.inf), queue.add(wait_s=math.inf)
    line.advance(1.0)
    assert verdict(second) is None
    line.settle(let_in(first), ServerFault("500"), 1.0)
    again = queue.add(1.0, wait_s=math.inf, begun=True, last=True)
    line.advance(2.0)
    assert let_in(second).trial
    assert verdict(again) is None
    line.settle(let_in(second), None, 2.0)
    assert let_in(again)


def test_not_asked_while_the_trial_runs(loop: asyncio.AbstractEventLoop) -> None:
    """Half-open with a running trial, a newcomer that does not hold is told so at once."""
    line = line_of(4)
    line.settle(taken(line), Misconfigured("401"), 0.0)
    trial = taken(line, 1.0)
    line.settle(trial, ServerFault("500"), 1.0)
    assert taken(line, 2.0).trial
    assert isinstance(verdict(Queue(line, loop).add(2.0)), BreakerOpen)


def test_one_closed_breaker_keeps_the_model_up(loop: asyncio.AbstractEventLoop) -> None:
    """With one endpoint misconfigured and one full, waiters wait for the full one."""
    line = line_of(1, 1)
    queue = Queue(line, loop)
    line.settle(taken(line), Misconfigured("401"), 0.0)
    busy = taken(line)
    waiter = queue.add()
    assert verdict(waiter) is None
    line.settle(busy, None, 0.1)
    assert let_in(waiter).endpoint.index == 1


def test_time_ends_for_begun_and_for_stale(loop: asyncio.AbstractEventLoop) -> None:
    """A passage that has begun waits until its deadline, any passage until it is stale."""
    line = line_of(1)
    queue = Queue(line, loop)
    taken(line)
    begun = queue.add(begun=True)
    stale = Waiter(loop.create_future(), Passage(5.0, stale_at_s=2.0), math.inf, 0.0)
    line.join(stale, 0.0)
    assert line.wake_at_s == 2.0
    line.advance(2.0)
    assert isinstance(verdict(stale), Stale)
    assert line.wake_at_s == 5.0
    line.advance(5.0)
    assert isinstance(verdict(begun), DeadlineOver)


def test_a_slot_handed_to_a_cancelled_task_is_passed_on(loop: asyncio.AbstractEventLoop) -> None:
    """Cancelled between hand-over and wake-up, the slot goes to the next in line."""
    line = line_of(1)
    queue = Queue(line, loop)
    running = taken(line)
    cancelled, following = queue.add(), queue.add()
    line.settle(running, None, 1.0)
    let_in(cancelled)
    line.leave(cancelled, 1.0)
    assert let_in(following)
    assert line.endpoints[0].in_use == 1


def test_the_times_of_those_who_left_are_forgotten(loop: asyncio.AbstractEventLoop) -> None:
    """However many begun records overtake one that waits, the line keeps no more times than twice its length and 64."""
    line = line_of(1)
    queue = Queue(line, loop)
    running = taken(line)
    line.join(Waiter(loop.create_future(), Passage(5.0, stale_at_s=2.0), 0.0, 0.0), 0.0)
    for _ in range(1000):
        waiter = queue.add(begun=True)
        line.settle(running, None, 0.0)
        running = let_in(waiter)
    assert len(line._ends) <= 70


def test_times_are_counted_anew_after_an_outage(loop: asyncio.AbstractEventLoop) -> None:
    """`wait_s` limits a wait only while the breaker is open; after it closed, a deadline that runs still does."""
    line = line_of(1)
    queue = Queue(line, loop)
    line.settle(taken(line), Misconfigured("401"), 0.0)
    trial = taken(line, 1.0)
    let_in_first = queue.add(1.0, wait_s=3.0, begun=True)
    begun = queue.add(1.0, wait_s=3.0, begun=True)
    fresh = queue.add(1.0, wait_s=3.0)
    line.settle(trial, None, 2.0)
    assert let_in(let_in_first)
    line.advance(4.5)
    assert verdict(begun) is None
    assert line.wake_at_s == 6.0
    line.advance(6.0)
    assert isinstance(verdict(begun), DeadlineOver)
    line.advance(100.0)
    assert verdict(fresh) is None


def test_a_record_that_fails_again_and_again_opens_no_breaker(loop: asyncio.AbstractEventLoop) -> None:
    """However often it is repeated at one endpoint it counts once in a row; ten records that each fail once open it."""
    line = line_of(1)
    endpoint = line.endpoints[0]
    for _ in range(100):
        line.settle(taken(line), None, 0.0)
    line.settle(taken(line), ServerFault("500"), 0.0)
    for _ in range(20):
        line.settle(taken(line, failed=(endpoint,)), ServerFault("500"), 0.0)
        running = taken(line, failed=(endpoint,))
        waiter = Queue(line, loop).add(begun=True, failed=(endpoint,))
        line.settle(running, ServerFault("500"), 0.0)
        line.settle(let_in(waiter), ServerFault("500"), 0.0)
    assert endpoint.breaker.closed
    for nth in range(1, 10):
        assert endpoint.breaker.closed, nth
        line.settle(taken(line, float(nth)), ServerFault("500"), nth + 0.5)
    assert endpoint.breaker.state == "open"


def test_what_failed_elsewhere_does_not_count_in_a_row() -> None:
    """Ten records that fail at one endpoint and then at the other open the breaker of the first only."""
    line = line_of(1, 1)
    for _ in range(100):
        for grant in (taken(line), taken(line)):
            line.settle(grant, None, 0.0)
    first, second = line.endpoints
    for nth in range(10):
        grant = taken(line, float(nth))
        assert grant.endpoint is first
        line.settle(grant, ServerFault("500"), nth + 0.1)
        again = taken(line, nth + 0.1, failed=(first,))
        assert again.endpoint is second
        line.settle(again, ServerFault("500"), nth + 0.2)
    assert [one.breaker.state for one in line.endpoints] == ["open", "closed"]


def test_an_endpoint_in_doubt_is_asked_by_the_share_of_the_room_that_it_has() -> None:
    """Two of three calls are more than ten of sixty-four."""
    line = line_of(64, 64)
    first, second = line.endpoints
    grants = [taken(line) for _ in range(25)]
    for grant in [grant for grant in grants if grant.endpoint is first][2:]:
        line.settle(grant, ServerFault("500"), 1.0)
    assert (first.in_use, first.room, second.in_use) == (2, 3, 12)
    assert taken(line, 1.0).endpoint is second
