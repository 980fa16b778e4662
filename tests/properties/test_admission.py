"""Admission under any order of arrivals, ends, cancellations and passing time: no slot leaks, nobody is forgotten."""

import asyncio
import math
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from workers.errors import (
    Busy,
    ConnectFailed,
    Declined,
    Misconfigured,
    NoAnswer,
    Overloaded,
    PenstockError,
    ServerFault,
)
from workers.llm.admission import Admission
from workers.llm.breaker import Breaker
from workers.llm.endpoint import Endpoint, Grant
from workers.llm.line import Line, Waiter
from workers.records import Passage
from workers.settings.servers import Breaker as BreakerSettings

BREAKER = BreakerSettings(reset_timeout_s=1.0, min_calls=4, window_s=5.0, connect_failures=2)

OUTCOMES: list[PenstockError | None] = [
    None,
    None,
    ServerFault("500"),
    ConnectFailed("refused"),
    Misconfigured("401"),
    Declined("400"),
    Busy("429"),
    Busy("429", 3.0),
    Overloaded("503"),
]


def endpoints_of(count: int, slots: int) -> list[Endpoint]:
    """Return endpoints whose breakers trip soon."""
    return [Endpoint(index, f"http://m{index}", slots, Breaker(BREAKER, lambda *_: None)) for index in range(count)]


class Admissions(RuleBasedStateMachine):
    """The line without an event loop: futures are looked at, never awaited."""

    @initialize(count=st.integers(1, 3), slots=st.integers(1, 3))
    def start(self, count: int, slots: int) -> None:
        """Begin with some endpoints, all closed."""
        self.now_s = 100.0
        self.loop = asyncio.new_event_loop()
        self.endpoints = endpoints_of(count, slots)
        self.line = Line(self.endpoints)
        self.held: list[Grant] = []
        self.waiting: list[Waiter] = []

    def teardown(self) -> None:
        """Every slot is free once all calls have ended and all waiters have left."""
        if not hasattr(self, "line"):
            return
        while self.waiting:
            self.line.leave(self.waiting.pop(), self.now_s)
        for grant in self.held:
            self.line.settle(grant, None, self.now_s)
        assert [endpoint.in_use for endpoint in self.endpoints] == [0] * len(self.endpoints)
        assert len(self.line) == 0
        self.loop.close()

    @rule(
        wait_s=st.sampled_from([0.0, 0.0, 2.0, math.inf]),
        begun=st.booleans(),
        last=st.booleans(),
        stale=st.booleans(),
        failed=st.sets(st.integers(0, 2), max_size=3),
    )
    def arrive(self, *, wait_s: float, begun: bool, last: bool, stale: bool, failed: set[int]) -> None:
        """Somebody asks for a slot."""
        passage = Passage(5.0, stale_at_s=self.now_s + 3.0 if stale else None)
        if begun:
            passage.begin(self.now_s)
        avoided = [self.endpoints[n] for n in failed if begun and n < len(self.endpoints)]
        works = [one for one in self.endpoints if one not in avoided and one.breaker.closed]
        works = [one for one in works if self.now_s >= one.cool_until_s]
        grant = self.line.take(avoided, self.now_s)
        if grant is not None:
            assert not works or grant.endpoint not in avoided
            self.held.append(grant)
            return
        waiter = Waiter(self.loop.create_future(), passage, wait_s, self.now_s, avoided, last)
        self.waiting.append(waiter)
        self.line.join(waiter, self.now_s)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20), outcome=st.sampled_from(OUTCOMES))
    def end(self, which: int, outcome: PenstockError | None) -> None:
        """A call ends."""
        self.line.settle(self.held.pop(which % len(self.held)), outcome, self.now_s)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20))
    def cancel_call(self, which: int) -> None:
        """A running call is cancelled."""
        self.line.release(self.held.pop(which % len(self.held)), self.now_s)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 20), in_between=st.sampled_from([None, *OUTCOMES]))
    def cancel_waiter(self, which: int, in_between: PenstockError | None) -> None:
        """A waiter's task is cancelled; other calls end before the task runs and leaves the line."""
        waiter = self.waiting.pop(which % len(self.waiting))
        waiter.future.cancel()
        if self.held:
            self.line.settle(self.held.pop(), in_between, self.now_s)
        self.line.leave(waiter, self.now_s)

    @rule(by_s=st.sampled_from([0.1, 0.6, 1.1, 4.0, 20.0]))
    def pass_time(self, by_s: float) -> None:
        """Time passes, and the timer of the line goes off whenever it said it would."""
        until_s = self.now_s + by_s
        for _ in range(1000):
            if self.line.wake_at_s > until_s:
                break
            self.now_s = max(self.now_s, self.line.wake_at_s)
            self.line.advance(self.now_s)
        else:
            pytest.fail("the timer goes off without end")
        self.now_s = until_s
        if self.line.wake_at_s <= self.now_s:
            self.line.advance(self.now_s)

    @invariant()
    def collect(self) -> None:
        """Whoever was let in holds a slot from now on; nobody is refused without a reason."""
        if not hasattr(self, "line"):
            return
        for waiter in [waiter for waiter in self.waiting if waiter.future.done()]:
            self.waiting.remove(waiter)
            verdict = waiter.future.result()
            if isinstance(verdict, Grant):
                self.held.append(verdict)
            else:
                assert isinstance(verdict, NoAnswer)

    @invariant()
    def slots_add_up(self) -> None:
        """in_use is what is held, never above the configured slots."""
        if not hasattr(self, "line"):
            return
        for endpoint in self.endpoints:
            handed = [waiter.grant for waiter in self.waiting if waiter.future.done() and waiter.grant is not None]
            holding = [grant for grant in self.held + handed if grant.endpoint is endpoint]
            assert endpoint.in_use == len(holding) <= endpoint.slots
            assert 1 <= endpoint.limit <= endpoint.slots
            assert sum(grant.trial and grant.stands for grant in holding) <= 1

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """While somebody waits no endpoint admits; when all are broken only those stay that may."""
        if not hasattr(self, "line") or not len(self.line):
            return
        admit = {endpoint for endpoint in self.endpoints if endpoint.admits(self.now_s)}
        for waiter in self.line:
            barred = waiter.failed if self.line.another_works(waiter.failed, self.now_s) else ()
            assert not admit - set(barred)
        broken = not any(endpoint.breaker.closed for endpoint in self.endpoints)
        for waiter in self.line:
            assert waiter in self.waiting
            assert not broken or waiter.wait_s > 0
            assert waiter.passage.ends_at_s is None or waiter.passage.ends_at_s > self.now_s
            assert waiter.passage.stale_at_s is None or waiter.passage.stale_at_s > self.now_s
        assert self.line.wake_at_s > self.now_s  # a moment that has come would come again and again
        assert self.line.wake_at_s < math.inf or any(endpoint.in_use for endpoint in self.endpoints)


TestAdmissions = Admissions.TestCase
TestAdmissions.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("seed", range(4))
async def test_random_cancellation_leaks_no_slot(seed: int) -> None:
    """On a real loop, tasks cancelled at any moment (waiting, handed over, running) leave every slot free."""
    draw = random.Random(seed)
    endpoints = endpoints_of(2, 2)
    admission = Admission(endpoints)

    async def visit() -> None:
        passage = Passage(0.05 if draw.random() < 0.3 else 5.0)
        if draw.random() < 0.3:
            passage.begin(asyncio.get_running_loop().time())
        grant = admission.take() or await admission.wait(passage, draw.choice([0.0, 0.01, math.inf]))
        try:
            await asyncio.sleep(draw.choice([0, 0, 0.001, 0.003]))
            admission.settle(grant, draw.choice([None] * 8 + [ServerFault("500"), Busy("429", 0.005)]))
        finally:
            admission.release(grant)

    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(visit()))
        if draw.random() < 0.4:
            draw.choice(tasks).cancel()
        if draw.random() < 0.5:
            await asyncio.sleep(draw.choice([0, 0, 0.001]))
    done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    admission.close()
    unexpected = [end for end in done if not isinstance(end, NoAnswer | asyncio.CancelledError | None)]
    assert unexpected == []
    assert [endpoint.in_use for endpoint in endpoints] == [0, 0]
    assert len(admission.line) == 0
