"""One suite that the scripted model, the real client and what stands before it pass: what stages may rely on."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Protocol

import pytest

from tests.support import fault_server as http
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import ASK, TOO_SHORT_S, client_for, passage, until
from tests.support.scripted_model import ScriptedModel
from workers.clock import monotonic_s
from workers.errors import (
    AnswerEmpty,
    AnswerRefused,
    BadEnvelope,
    Busy,
    ContextExceeded,
    Declined,
    Misconfigured,
    NoAnswer,
    Overloaded,
    ServerFault,
)
from workers.llm.batches import Batches
from workers.llm.cache import Cached
from workers.llm.flights import SingleFlight
from workers.ports import Model
from workers.records import Prompt
from workers.settings.batch import BatchSettings
from workers.settings.model import CacheSettings

Outcome = str | type[NoAnswer]

ATTEMPTS = 2

WIRE: dict[type[NoAnswer], list[http.Step]] = {
    AnswerEmpty: [http.answer(None)],
    AnswerRefused: [http.answer(None, refusal="no")],
    BadEnvelope: [http.page()] * ATTEMPTS,
    Busy: [http.status(429, {}, "Retry-After: 60")],
    ContextExceeded: [http.status(400, {"error": {"code": "context_length_exceeded"}})],
    Declined: [http.status(400)],
    Misconfigured: [http.status(401)],
    Overloaded: [http.status(503, {}, "Retry-After: 60")],
    ServerFault: [http.status(500)] * ATTEMPTS,
}


class Subject(Protocol):
    """A model whose outcomes the test decides."""

    @property
    def model(self) -> Model:
        """The model under test."""

    def will(self, *outcomes: Outcome) -> None:
        """Decide what the next `complete` calls end in, one outcome each."""

    def hold(self) -> asyncio.Event:
        """Let the next call run until the event is set."""


class Scripted:
    """The fake."""

    def __init__(self) -> None:
        self.model = ScriptedModel()

    def will(self, *outcomes: Outcome) -> None:
        """Put outcomes into the script."""
        self.model.goes_on_with(*(o if isinstance(o, str) else o("scripted") for o in outcomes))

    def hold(self) -> asyncio.Event:
        """Clear the gate."""
        self.model.gate.clear()
        return self.model.gate


BEFORE: dict[str, Callable[[Model], Model]] = {
    "real": lambda client: client,
    "flights": SingleFlight,
    "cached": lambda client: Cached(client, CacheSettings()),
    "batches": lambda client: Batches(client, BatchSettings(linger_s=0.01)),
    "all": lambda client: Cached(SingleFlight(Batches(client, BatchSettings(linger_s=0.01))), CacheSettings()),
}
"""What stands before the client. A record that comes alone is to notice nothing of it, so every case applies."""


class Real:
    """The client, before a server that answers so that the client arrives at the outcome."""

    def __init__(self, server: FaultServer, before: Callable[[Model], Model]) -> None:
        self.server = server
        self.client = client_for(server.url, max_attempts=ATTEMPTS, breaker={"connect_failures": 99})
        self.model = before(self.client)

    def will(self, *outcomes: Outcome) -> None:
        """Put answers into the server's script."""
        for outcome in outcomes:
            steps: Iterable[http.Step] = [http.answer(outcome)] if isinstance(outcome, str) else WIRE[outcome]
            self.server.script.extend(steps)

    def hold(self) -> asyncio.Event:
        """Let the server wait with its next answer."""
        gate = asyncio.Event()
        self.server.script.appendleft(http.once(gate, http.answer("late")))
        return gate


@pytest.fixture(params=["scripted", *BEFORE])
async def subject(request: pytest.FixtureRequest, http_client: str) -> AsyncIterator[Subject]:
    """Each of them, the real ones with each HTTP client."""
    del http_client
    if request.param == "scripted":
        yield Scripted()
        return
    async with AsyncExitStack() as stack:
        real = Real(await stack.enter_async_context(FaultServer()), BEFORE[request.param])
        await real.client.start()
        stack.push_async_callback(real.client.close)
        yield real


def prompt(model: Model, text: str = "a ticket") -> Prompt:
    """Return a prompt as stage 2 builds it: the frame's hole takes a JSON string."""
    return model.frame(ASK).around(text)


async def test_a_frame_and_a_json_string_make_json(subject: Subject) -> None:
    """Any text fits into the hole, as JSON with its quotes."""
    body = json.loads(prompt(subject.model, 'a "quoted"\nline').body)
    assert 'a "quoted"\nline' in json.dumps(body, ensure_ascii=False).encode().decode("unicode_escape")


async def test_a_reply_says_what_was_said(subject: Subject) -> None:
    """Text, tokens, endpoint, latency and the number of attempts."""
    subject.will("hello")
    way = passage()
    reply = await subject.model.complete(prompt(subject.model), way, wait_s=0)
    assert (reply.text, reply.finish_reason, reply.input_tokens, reply.output_tokens) == ("hello", "stop", 11, 7)
    assert reply.endpoint.startswith("http://")
    assert 0 <= reply.latency_s < 10
    assert reply.attempts == way.attempts == 1


async def test_the_deadline_begins_with_the_first_slot(subject: Subject) -> None:
    """A passage begins at its first call, not before, and is not begun again by the next."""
    subject.will("one", "two")
    way = passage(deadline_s=30)
    await subject.model.complete(prompt(subject.model), way, wait_s=0)
    ends_at_s = way.ends_at_s
    assert ends_at_s is not None
    assert monotonic_s() + 19 < ends_at_s <= monotonic_s() + 30
    await subject.model.complete(prompt(subject.model), way, wait_s=0)
    assert way.ends_at_s == ends_at_s
    assert way.attempts == 2


@pytest.mark.parametrize("error", [AnswerEmpty, AnswerRefused, ContextExceeded, Declined, Misconfigured])
async def test_failures_that_end_at_once(subject: Subject, error: type[NoAnswer]) -> None:
    """They are raised as what they are, after one attempt, and the passage is not busy any more."""
    subject.will(error)
    way = passage()
    with pytest.raises(error) as raised:
        await subject.model.complete(prompt(subject.model), way, wait_s=0)
    assert type(raised.value) is error
    assert (way.attempts, way.busy) == (1, False)


@pytest.mark.parametrize("error", [BadEnvelope, ServerFault])
async def test_failures_of_the_endpoint(subject: Subject, error: type[NoAnswer]) -> None:
    """After the last attempt the last failure is raised."""
    subject.will(error)
    way = passage()
    with pytest.raises(error):
        await subject.model.complete(prompt(subject.model), way, wait_s=0)
    assert not way.busy


@pytest.mark.parametrize("error", [Busy, Overloaded])
async def test_no_room_until_the_deadline(subject: Subject, error: type[NoAnswer]) -> None:
    """429 and 503 are raised as such when the deadline leaves no time for another call: a tenth of `timeout_s`."""
    subject.will(error)
    with pytest.raises(error) as raised:
        await subject.model.complete(prompt(subject.model), passage(TOO_SHORT_S), wait_s=0)
    assert type(raised.value) is error


async def test_busy_only_while_a_call_runs(subject: Subject) -> None:
    """A passage is busy from the start of its call to its end."""
    gate, way = subject.hold(), passage()
    task = asyncio.create_task(subject.model.complete(prompt(subject.model), way, wait_s=0))
    assert not way.busy
    await until(lambda: way.busy)
    gate.set()
    await task
    assert not way.busy


async def test_cancellation_ends_the_call(subject: Subject) -> None:
    """A cancelled call raises CancelledError, is not busy, and the next one is served."""
    gate, way = subject.hold(), passage()
    task = asyncio.create_task(subject.model.complete(prompt(subject.model), way, wait_s=0))
    await until(lambda: way.busy)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not way.busy
    gate.set()
    subject.will("next")
    await subject.model.complete(prompt(subject.model), passage(), wait_s=math.inf)


async def test_answered_since(subject: Subject) -> None:
    """True from the first success on, for any moment before it; a failure is no answer."""
    began_s = monotonic_s()
    subject.will(Declined)
    with pytest.raises(Declined):
        await subject.model.complete(prompt(subject.model), passage(), wait_s=0)
    assert not subject.model.answered_since(began_s)
    subject.will("yes")
    await subject.model.complete(prompt(subject.model), passage(), wait_s=0)
    assert subject.model.answered_since(began_s)
    assert not subject.model.answered_since(monotonic_s() + 1)


async def test_a_fault_of_configuration_is_named_until_an_answer(subject: Subject) -> None:
    """Why a person must act is known from the first refusal to the first answer after it."""
    assert subject.model.held_reason() is None
    subject.will(Misconfigured, "yes")
    with pytest.raises(Misconfigured):
        await subject.model.complete(prompt(subject.model), passage(), wait_s=0)
    assert (subject.model.held_reason() or "").startswith("misconfigured: ")
    await subject.model.complete(prompt(subject.model), passage(), wait_s=math.inf)
    assert subject.model.held_reason() is None


async def test_the_pace_is_known_before_any_call(subject: Subject) -> None:
    """There is always a positive rate."""
    assert subject.model.pace_per_s() > 0
