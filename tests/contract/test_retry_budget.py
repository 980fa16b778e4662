"""Further calls for a record whose call failed: a tenth of the first calls at most, whatever fails; I9 for a model."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import fault_server as http
from tests.support.llm_settings import ASK, Serve, Start, ask, client_for, passage, prompt_for, until
from tests.support.memory import memory_task
from workers.clock import monotonic_s
from workers.errors import Busy, ConnectionLost, Declined, NoAnswer, ServerFault, Stale, TimedOut, Unavailable
from workers.llm import Client
from workers.llm.retries import Course
from workers.llm.transport import Target
from workers.metrics import REGISTRY
from workers.records import Passage, Prompt, Reply
from workers.retry_budget import RESERVE, SHARE
from workers.stages.s3_call import call
from workers.task import Task

NEVER = {"min_calls": 100_000, "connect_failures": 100_000}
"""A breaker that does not open: nothing but the budget limits what is sent."""
GOOD = http.completion()
OUTCOMES = (
    None,
    TimedOut("none in time"),
    ConnectionLost("lost"),
    ServerFault("500"),
    Busy("429", 0.001),
    Declined("400"),
)


class Scripted:
    """Stands for the transport: each post ends as the script says, None with an answer. Counts calls by endpoint."""

    def __init__(self, outcome: Callable[[str, bytes], NoAnswer | None]) -> None:
        self.outcome = outcome
        self.calls: Counter[str] = Counter()

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def post(self, to: Target, body: bytes, timeout_s: float) -> tuple[int, Mapping[str, str], bytes]:
        """End as the script says."""
        del timeout_s
        self.calls[to.label] += 1
        await asyncio.sleep(0)
        error = self.outcome(to.label, body)
        if error is not None:
            raise type(error)(str(error))
        return 200, {"Content-Type": "application/json"}, orjson.dumps(GOOD)


@asynccontextmanager
async def scripted(
    outcome: Callable[[str, bytes], NoAnswer | None], endpoints: int = 1, **changes: object
) -> AsyncIterator[tuple[Client, Scripted]]:
    """Return a client whose calls end as they are told to, and what counts them."""
    urls = [f"http://m{number}" for number in range(endpoints)]
    client, transport = client_for(*urls, slots=64, **{"breaker": NEVER, **changes}), Scripted(outcome)
    client._server._transport = transport  # type: ignore[assignment]
    await client.start()
    yield client, transport
    await client.close()


async def outcome_of(client: Client, way: Passage | None = None) -> Reply | NoAnswer:
    """Ask once; return what came of it."""
    try:
        return await ask(client, way)
    except NoAnswer as error:
        return error


def refused() -> float:
    """Return how many further attempts of the model were refused so far."""
    return REGISTRY.get_sample_value("penstock_model_retries_refused_total", {"model": "tiny"}) or 0.0


@given(
    endpoints=st.integers(1, 3),
    waves=st.lists(st.integers(0, 60), min_size=1, max_size=2),
    share=st.sampled_from([0.05, 0.3, 1.0]),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=15, deadline=None)
def test_no_outcomes_bring_more_calls_than_the_budget(
    endpoints: int, waves: list[int], share: float, chance: random.Random
) -> None:
    """Whatever happens to which record: calls <= 1.1 first calls + reserve + one a record and further endpoint.

    Refusals (429) are sent again without a limit of their own; they are paced, and left out here.
    """
    busy = 0

    def outcome(*_: object) -> NoAnswer | None:
        nonlocal busy
        error = chance.choice(OUTCOMES) if chance.random() < share else None
        busy += isinstance(error, Busy)
        return error

    async def run() -> int:
        async with scripted(outcome, endpoints, max_attempts=4) as (client, transport):
            for records in waves:
                ends = await asyncio.wait_for(asyncio.gather(*(outcome_of(client) for _ in range(records))), 60)
                assert len(ends) == records
            return transport.calls.total()

    firsts = sum(waves)
    assert asyncio.run(run()) - busy <= firsts * (1 + SHARE) + RESERVE + firsts * (endpoints - 1)


async def test_when_every_call_fails_a_tenth_is_tried_again() -> None:
    """200 records a second for 3 s into a server that fails: no storm, and the rest goes down the ladder at once."""
    before = refused()
    async with scripted(lambda *_: ServerFault("500")) as (client, transport):
        asked: list[asyncio.Task[Reply | NoAnswer]] = []
        began_s = monotonic_s()
        for number in range(600):
            await asyncio.sleep(max(0.0, began_s + number / 200 - monotonic_s()))
            asked.append(asyncio.create_task(outcome_of(client)))
        ends = await asyncio.wait_for(asyncio.gather(*asked), 30)
    assert all(isinstance(end, ServerFault) for end in ends)
    retries = transport.calls.total() - 600
    print(f"{retries} retries of 600")
    assert RESERVE <= retries <= 600 * SHARE + RESERVE
    assert sum(end.unretried > 0 for end in ends if isinstance(end, Unavailable)) == refused() - before > 500


async def test_what_fails_now_and_then_is_tried_again() -> None:
    """One call in twenty fails, as in daily life: every one of them is tried again."""
    turn = iter(range(100_000))
    async with scripted(lambda *_: ServerFault("500") if next(turn) % 20 == 7 else None) as (client, transport):
        for _ in range(400):
            assert isinstance(await outcome_of(client), Reply)
    assert transport.calls.total() > 400


@pytest.mark.parametrize("endpoints", [2, 3])
async def test_another_endpoint_is_asked_whatever_the_budget(endpoints: int) -> None:
    """An outage of one of several: nobody goes down the ladder; of all of them: one call per endpoint and record."""
    async with scripted(lambda to, _: ServerFault("500") if to == "http://m0" else None, endpoints) as (client, one):
        client._retries.budget.left = 0.0
        ends = await asyncio.gather(*(outcome_of(client) for _ in range(200)))
        assert all(isinstance(end, Reply) for end in ends)
        assert one.calls.total() == 200 + one.calls["http://m0"]
    async with scripted(lambda *_: ServerFault("500"), endpoints, max_attempts=9) as (client, all_of_them):
        client._retries.budget.left = -100.0
        await asyncio.gather(*(outcome_of(client) for _ in range(100)))
        assert set(all_of_them.calls.values()) == {100}


async def test_who_may_ask_another_endpoint_waits_for_its_slot(serve: Serve, start: Start) -> None:
    """The one that failed has slots, the other has none just now: no call is wasted on the first."""
    gate = asyncio.Event()
    bad, good = await serve(default=http.status(500)), await serve(default=http.once(gate, http.answer()))
    client = await start(bad.url, good.url, slots=1, max_attempts=3, breaker=NEVER)
    both = [asyncio.create_task(ask(client)) for _ in range(2)]
    await until(lambda: good.running and len(bad.requests) == 1)
    await asyncio.sleep(0.3)
    assert len(bad.requests) == 1
    gate.set()
    assert [(await one).text for one in both] == ["ok", "ok"]


def hold(client: Client) -> Task:
    """Return a task that holds while the model is away."""
    return memory_task(client, when_unavailable="hold")  # type: ignore[arg-type]


def prompt_of(client: Client) -> Prompt:
    """Return a prompt."""
    return prompt_for(client.frame(ASK))


async def test_under_hold_who_is_refused_waits_for_the_budget() -> None:
    """Others are answered meanwhile, yet it is not to blame: it had no second attempt. It gets one."""
    fails = [True]
    async with scripted(lambda _, body: ServerFault("500") if fails[0] and b"held" in body else None) as (client, one):
        client._retries.budget.left = 0.0
        way = passage()
        held = asyncio.create_task(call(prompt_for(client.frame(ASK), '"held"'), hold(client), way))
        await until(lambda: way.unretried)
        fails[0] = False
        for _ in range(5):
            await ask(client)
        await asyncio.sleep(0.4)
        assert way.attempts == 1  # half a call was earned
        assert not way.busy  # a revoke may cancel it
        assert way.ends_at_s is None
        for _ in range(6):
            await ask(client)
        assert (await asyncio.wait_for(held, 20)).attempts == 2
        assert one.calls.total() == 13


async def test_under_hold_nobody_waits_for_ever_and_nobody_runs_in_circles() -> None:
    """Nothing else is asked, so that nothing is earned: then the pauses earn, ten of them one call."""
    fails = [True]
    async with scripted(lambda *_: ServerFault("500") if fails[0] else None) as (client, one):
        client._retries.budget.left, way = 0.0, passage()
        held = asyncio.create_task(call(prompt_of(client), hold(client), way))
        await until(lambda: way.unretried)
        client._retries.budget.left = 0.45
        fails[0] = False
        turns = _turns(client)
        await asyncio.wait_for(held, 60)
        assert one.calls.total() == 2
        assert 5 <= turns[0] <= 7


def _turns(client: Client) -> list[int]:
    """Count how often the budget is asked from now on."""
    turns, spend = [0], client._retries.budget.spend

    def counted() -> bool:
        turns[0] += 1
        return spend()

    client._retries.budget.spend = counted  # type: ignore[method-assign]
    return turns


async def test_under_hold_a_record_that_alone_fails_still_leaves() -> None:
    """It had all its attempts, each paid for: it must not block its key for ever."""
    async with scripted(lambda _, body: ServerFault("500") if b"poison" in body else None, max_attempts=3) as (
        client,
        _,
    ):
        client._retries.budget.left = 0.0
        way = passage()
        poison = asyncio.create_task(call(prompt_for(client.frame(ASK), '"poison"'), hold(client), way))
        async with asyncio.timeout(30):
            while not poison.done():
                # Enough for the call that it waits for, never for one more: each failure ends a course.
                client._retries.budget.left = 1.0 if way.unretried and way.ends_at_s is None else 0.0
                await ask(client)
                await asyncio.sleep(0.005)
        with pytest.raises(ServerFault) as raised:
            await poison
        assert (way.attempts, raised.value.unretried) == (3, 0)


async def test_who_waits_for_the_budget_can_be_cancelled_and_grows_stale() -> None:
    """The wait ends with the partition, and with `max_age_s`."""
    async with scripted(lambda *_: ServerFault("500")) as (client, _):
        client._retries.budget.left = -1000.0
        way = passage()
        waits = asyncio.create_task(call(prompt_of(client), hold(client), way))
        await until(lambda: way.unretried)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waits, 10)
        assert client._endpoints[0].in_use == 0
        with pytest.raises(Stale):
            await asyncio.wait_for(
                call(prompt_of(client), hold(client), Passage(10.0, stale_at_s=monotonic_s() + 0.5)), 20
            )


async def test_what_waited_for_a_breaker_is_not_paid_for(serve: Serve, start: Start) -> None:
    """An outage under hold: when it is over all are asked at once, though the budget is empty."""
    server = await serve(*[http.status(500)] * 6)
    client = await start(server.url, slots=4, max_attempts=3, breaker={"min_calls": 4, "reset_timeout_s": 0.1})
    client._retries.budget.left = -1000.0
    waits = [asyncio.create_task(call(prompt_of(client), hold(client), passage())) for _ in range(8)]
    assert len(await asyncio.wait_for(asyncio.gather(*waits), 20)) == 8


def test_refusals_cost_nothing() -> None:
    """429 and 503 are no attempts: the cool-down paces them."""

    async def run(errors: Sequence[Unavailable]) -> float:
        async with scripted(lambda *_: None) as (client, _):
            course = Course(prompt_of(client), passage(), math.inf)
            for error in errors:
                assert client._retries.pause_s(course, error) == 0.0
            return client._retries.budget.left

    assert asyncio.run(run([Busy("429")] * 50)) == RESERVE
