"""The endpoint rows of the fault catalogue (E1-E23), done to the real client over real sockets."""

import asyncio
import math
import re
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from tests.support import fault_server as http
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import (
    ASK,
    LEAST_S,
    Serve,
    Start,
    ask,
    model_settings,
    passage,
    prompt_for,
    refused_url,
    until,
)
from workers.clock import monotonic_s
from workers.errors import (
    EX_CONFIG,
    AnswerTooLarge,
    BadEnvelope,
    BreakerOpen,
    Busy,
    ConnectFailed,
    ConnectionLost,
    ContextExceeded,
    DeadlineOver,
    Declined,
    Exit,
    Misconfigured,
    NoAnswer,
    Overloaded,
    ServerFault,
    TimedOut,
    WrongModel,
)
from workers.llm import Client
from workers.llm.retries import Course
from workers.llm.status import LOADING_COOL_DOWN_S
from workers.metrics import REGISTRY
from workers.records import Passage, Reply

TRANSPORT_FAULTS = [
    pytest.param(http.hang(), TimedOut, id="hang", marks=pytest.mark.fault("E1")),
    pytest.param(http.reset(), ConnectionLost, id="reset", marks=pytest.mark.fault("E2")),
    pytest.param(
        http.reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        ConnectionLost,
        id="reset-body",
        marks=pytest.mark.fault("E4"),
    ),
    pytest.param(http.cut(), ConnectionLost, id="cut", marks=pytest.mark.fault("E4")),
    pytest.param(http.cut(chunked=True), ConnectionLost, id="cut-chunked", marks=pytest.mark.fault("E4")),
    pytest.param(http.bad_chunk(), ConnectionLost, id="bad-chunk", marks=pytest.mark.fault("E4")),
    pytest.param(http.cut(length=False), BadEnvelope, id="cut-unseen", marks=pytest.mark.fault("E5")),
    pytest.param(http.drip(), TimedOut, id="drip", marks=pytest.mark.fault("E6")),
    pytest.param(http.flood(), AnswerTooLarge, id="flood", marks=pytest.mark.fault("E7")),
    pytest.param(http.bomb(), BadEnvelope, id="gzip", marks=pytest.mark.fault("E7")),
    pytest.param(http.garbage(), ConnectionLost, id="garbage", marks=pytest.mark.fault("E8")),
    pytest.param(http.long_header(), ConnectionLost, id="long-header", marks=pytest.mark.fault("E8")),
    pytest.param(http.page(), BadEnvelope, id="html", marks=pytest.mark.fault("E9")),
    pytest.param(http.raw(http.http(200, b'{"a":')), BadEnvelope, id="bad-json", marks=pytest.mark.fault("E10")),
    pytest.param(
        http.raw(http.http(200, b'{"choices": "\xff"}')), BadEnvelope, id="bad-utf8", marks=pytest.mark.fault("E10")
    ),
    pytest.param(http.raw(http.http(200, b"")), BadEnvelope, id="empty-200", marks=pytest.mark.fault("E10")),
]


ANSWERED_S = 2.5
"""Time enough for the good answer behind a timeout, which comes at once."""


def brief(error: type[NoAnswer], timeout_s: float = 0.4) -> dict[str, float]:
    """Return a short timeout for the faults that end in one; with any other it would only come first now and then."""
    return {"timeout_s": timeout_s} if error is TimedOut else {}


@pytest.mark.parametrize(("fault", "error"), TRANSPORT_FAULTS)
async def test_a_transport_fault_is_named_and_another_endpoint_asked(
    serve: Serve, start: Start, fault: http.Step, error: type[NoAnswer]
) -> None:
    """One attempt ends in its class, within its time; with a second endpoint the next attempt goes there."""
    bad, good = await serve(default=fault), await serve()
    alone = await start(bad.url, **brief(error))
    began_s = monotonic_s()
    with pytest.raises(error) as raised:
        await ask(alone)
    assert type(raised.value) is error
    assert raised.value.endpoint == bad.url  # the dead letter and the provenance name it
    assert monotonic_s() - began_s < 10
    both = await start(bad.url, good.url, **brief(error, ANSWERED_S), max_attempts=2)
    way = passage()
    assert (await ask(both, way)).text == "ok"
    assert way.attempts == 2


@pytest.mark.parametrize(("fault", "error"), TRANSPORT_FAULTS)
async def test_a_transport_fault_is_tried_again_and_counts_for_the_breaker(
    serve: Serve, start: Start, fault: http.Step, error: type[NoAnswer]
) -> None:
    """I12: with one endpoint the same one is asked again; when it fails for good its breaker opens: nobody asks."""
    limits = {"min_calls": 1, "connect_failures": 1, "reset_timeout_s": 60}
    server = await serve(fault)
    way = passage()
    assert (await ask(await start(server.url, **brief(error, ANSWERED_S), max_attempts=2), way)).text == "ok"
    assert way.attempts == 2
    server = await serve(default=fault)
    client = await start(server.url, **brief(error), breaker=limits)
    with pytest.raises(error):
        await ask(client)
    asked = len(server.requests)
    for _ in range(3):
        with pytest.raises(BreakerOpen):
            await ask(client)
    assert len(server.requests) == asked
    assert REGISTRY.get_sample_value("penstock_breaker_state", {"model": "tiny", "endpoint": server.url}) == 2


@pytest.mark.fault("E1")
@pytest.mark.fault("E6")
@pytest.mark.parametrize("field", ["timeout_s", "connect_timeout_s"])
@pytest.mark.parametrize("value", [None, 0, math.inf, "none"])
def test_a_call_cannot_be_without_a_limit(field: str, value: object) -> None:
    """I9: the time of a whole call always has an end, which no slow drip puts off; no setting takes it away."""
    with pytest.raises(ValidationError):
        model_settings("http://127.0.0.1:9", **{field: value})


@pytest.mark.fault("E1")
async def test_e1_each_attempt_has_its_timeout_and_all_have_the_deadline(serve: Serve, start: Start) -> None:
    """A call is cut by `timeout_s` or by what is left of the deadline, and that counts as a timeout."""
    server = await serve(default=http.hang())
    client = await start(server.url, timeout_s=20.0)
    began_s = monotonic_s()
    with pytest.raises(TimedOut):
        await ask(client, passage(deadline_s=0.3))
    assert 0.25 <= monotonic_s() - began_s < 10


@pytest.mark.fault("E3")
async def test_e3_a_stale_connection_costs_one_silent_retry(serve: Serve, start: Start) -> None:
    """A connection closed before the first byte: asked again at once on a new one, no attempt, no blame."""
    server = await serve(http.answer(), http.close())
    client = await start(server.url, breaker={"min_calls": 1, "connect_failures": 1, "reset_timeout_s": 60})
    await ask(client)
    way = passage()
    assert (await ask(client, way)).text == "ok"
    assert way.attempts == 1
    assert [seen.connection for seen in server.requests] == [1, 1, 2]
    assert (await ask(client)).text == "ok"


@pytest.mark.fault("E3")
async def test_e3_the_retry_meets_no_other_stale_connection(serve: Serve, start: Start) -> None:
    """With two kept connections, the retry of the first opens a third instead of trying the second."""
    gate = asyncio.Event()
    server = await serve(*[http.once(gate, http.answer())] * 2, http.close())
    client = await start(server.url)
    both = asyncio.gather(ask(client), ask(client))
    await until(lambda: server.running == 2)
    gate.set()
    await both
    await ask(client)
    assert [seen.connection for seen in server.requests][3] == 3


@pytest.mark.fault("E3")
async def test_e3_the_second_close_is_a_failure(serve: Serve, start: Start) -> None:
    """A server that closes the new connection too has lost it."""
    server = await serve(http.answer(), default=http.close())
    client = await start(server.url)
    await ask(client)
    with pytest.raises(ConnectionLost):
        await ask(client)
    assert [seen.connection for seen in server.requests] == [1, 1, 2]


async def test_connections_are_kept(serve: Serve, start: Start) -> None:
    """Calls one after another use one connection."""
    server = await serve()
    client = await start(server.url)
    for _ in range(5):
        await ask(client)
    assert {seen.connection for seen in server.requests} == {1}


@pytest.mark.fault("E7")
async def test_nobody_asks_for_compression_and_the_key_is_a_bearer(serve: Serve, start: Start) -> None:
    """The headers that leave us."""
    server = await serve()
    await ask(await start(server.url, api_key="canary"))
    headers = server.requests[0].headers
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer canary"
    assert "cookie" not in headers


@pytest.mark.fault("E13")
async def test_e13_finish_reason_length_is_passed_on(serve: Serve, start: Start) -> None:
    """A cut answer is an answer here; the parse stage knows what to do with it."""
    server = await serve(http.answer('{"category": "bi', "length"))
    reply = await ask(await start(server.url))
    assert (reply.text, reply.finish_reason) == ('{"category": "bi', "length")


@pytest.mark.fault("E25")
async def test_e25_the_model_that_answered_is_named(serve: Serve, start: Start) -> None:
    """Whatever was asked for, the reply (and with it the provenance) says which model the server used."""
    server = await serve(http.status(200, {**http.completion(), "model": "another"}))
    assert (await ask(await start(server.url))).model == "another"
    assert server.bodies == [{**server.bodies[0], "model": "tiny"}]  # type: ignore[dict-item]


@pytest.mark.fault("E25")
@pytest.mark.parametrize("named", ["another", "", None])
async def test_e25_with_strict_model_another_model_holds_until_the_right_one_is_back(
    serve: Serve, start: Start, named: str | None
) -> None:
    """A fault of configuration: told to a person, and every trial looks again."""
    server = await serve(http.status(200, {**http.completion(), "model": named}))
    server.default = http.status(200, {**http.completion(), "model": "tiny"})
    client = await start(server.url, strict_model=True, breaker={"reset_timeout_s": 0.05})
    with pytest.raises(WrongModel, match="strict_model") as caught:
        await ask(client)
    assert caught.value.reason == "wrong_model"
    assert "strict_model" in (client.held_reason() or "")
    assert (await ask(client, wait_s=math.inf)).model == "tiny"
    assert client.held_reason() is None


@pytest.mark.fault("E15", "E16")
@pytest.mark.parametrize("header", ["Retry-After: 0.4", "retry-after-ms: 400"])
@pytest.mark.parametrize("code", [429, 503])
async def test_e15_e16_nobody_asks_before_the_time(serve: Serve, start: Start, code: int, header: str) -> None:
    """After 429 or 503 the endpoint is left alone for as long as it asked, by all; then the record is answered."""
    server = await serve(http.status(code, {}, header))
    client = await start(server.url)
    first, second = passage(), passage()
    replies = await asyncio.gather(ask(client, first), _behind_a_refusal(client, second))
    assert [reply.text for reply in replies] == ["ok", "ok"]
    assert first.attempts == 2
    refused_at_s, *later_s = [seen.at_s for seen in server.requests]
    assert min(later_s) - refused_at_s >= 0.39


async def _behind_a_refusal(client: Client, way: Passage) -> Reply:
    await until(lambda: client._endpoints[0].cool_until_s > 0)
    return await ask(client, way)


@pytest.mark.fault("E15")
@pytest.mark.parametrize(
    "header",
    [
        "X-None: 1",
        "Retry-After: -1",
        "Retry-After: inf",
        "Retry-After: nan",
        "Retry-After: 9999999",
        "Retry-After: soon",
    ],
)
async def test_e15_junk_means_our_own_pause(serve: Serve, start: Start, header: str) -> None:
    """Without a usable time the first pause is 0.5 s, at most a quarter shorter."""
    server = await serve(http.status(429, {}, header))
    await ask(await start(server.url))
    first, second = server.requests
    assert 0.37 <= second.at_s - first.at_s < 20


@pytest.mark.fault("E15")
async def test_e15_another_endpoint_answers_meanwhile(serve: Serve, start: Start) -> None:
    """With a second endpoint a 429 costs no time."""
    busy, free = await serve(default=http.status(429, {}, "Retry-After: 60")), await serve()
    client = await start(busy.url, free.url)
    for _ in range(3):
        await ask(client)
    assert (len(busy.requests), len(free.requests)) == (1, 3)


@pytest.mark.fault("E15")
async def test_e15_a_time_past_the_deadline_ends_the_record_at_its_deadline(serve: Serve, start: Start) -> None:
    """I9: a record waits for the cool-down no longer than it may, and the cool-down goes on without it."""
    server = await serve(http.status(429, {}, "Retry-After: 60"))
    client = await start(server.url, timeout_s=2.0)
    for deadline_s in (2.0, 0.3):  # the first one's call is refused within it, the second one makes none
        began_s = monotonic_s()
        way = passage(deadline_s)
        way.begin(began_s)
        with pytest.raises((Busy, DeadlineOver)):
            await ask(client, way)
        assert monotonic_s() - began_s < 20
    assert len(server.requests) == 1


@pytest.mark.fault("E16")
async def test_e16_a_model_that_is_being_loaded_gets_more_time(serve: Serve, start: Start) -> None:
    """Its cool-down is seconds, not half a second; nobody has to act, so the worker stays ready."""
    server = await serve(http.status(503, {"error": {"message": "Loading model", "type": "unavailable_error"}}))
    client = await start(server.url, timeout_s=2.0)
    began_s = monotonic_s()
    with pytest.raises(Overloaded):
        await ask(client, passage(deadline_s=2.0))
    assert len(server.requests) == 1
    assert client.held_reason() is None
    assert LOADING_COOL_DOWN_S - 1 < client._endpoints[0].cool_until_s - began_s < 30


@pytest.mark.fault("E15", "E16")
async def test_e16_busy_never_opens_the_breaker_and_503_does(serve: Serve, start: Start) -> None:
    """429 is an endpoint that works; 503 may be broken."""
    tiny_pause = "retry-after-ms: 1"
    limits = {"min_calls": 4, "reset_timeout_s": 60}
    busy = await start((await serve(default=http.status(429, {}, tiny_pause))).url, breaker=limits)
    with pytest.raises(Busy) as raised:
        await ask(busy, passage(deadline_s=LEAST_S + 0.4))
    assert type(raised.value) is Busy
    broken = await start((await serve(default=http.status(503, {}, tiny_pause))).url, breaker=limits)
    with pytest.raises(BreakerOpen) as opened:
        await ask(broken)
    assert "503" in str(opened.value)
    assert Overloaded.blames_endpoint


@pytest.mark.fault("E17")
@pytest.mark.parametrize(("code", "error"), [(400, Declined), (413, Declined), (422, Declined)])
async def test_e17_a_refused_request_is_not_asked_again(
    serve: Serve, start: Start, code: int, error: type[NoAnswer]
) -> None:
    """One request, no blame for the endpoint, whatever the attempts allowed."""
    server = await serve(http.status(code))
    client = await start(server.url, max_attempts=5)
    with pytest.raises(error):
        await ask(client)
    assert (await ask(client)).text == "ok"
    assert len(server.requests) == 2


class Slamming(FaultServer):
    """Answers 413 to a head and resets the connection, while the body is still being sent."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        del connection
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http.http(413, b'{"error": {"message": "too large"}}'))
        await http.reset()(reader, writer)


@pytest.mark.fault("E17")
async def test_e17_a_refusal_of_a_body_wins_over_the_reset_behind_it(stack: AsyncExitStack, start: Start) -> None:
    """As proxies do with a body that is too large for them: the request is refused, and no connection lost."""
    server = await stack.enter_async_context(Slamming())
    for _ in range(5):
        client = await start(server.url)
        large = prompt_for(client.frame(ASK), '"' + "x" * (1_000 << 10) + '"')
        with pytest.raises(Declined):
            await client.complete(large, passage(), wait_s=0.0)
    assert server.connections == 5


@pytest.mark.fault("E17")
async def test_e17_context_exceeded(serve: Serve, start: Start) -> None:
    """A prompt that does not fit has its own class."""
    body = {"error": {"type": "exceed_context_size_error", "message": "too long"}}
    with pytest.raises(ContextExceeded):
        await ask(await start((await serve(http.status(400, body))).url))


@pytest.mark.fault("E17", "E19")
@pytest.mark.parametrize("code", [401, 403, 404, 301, 302, 307, 308])
async def test_e17_e19_faults_of_configuration_close_the_door(serve: Serve, start: Start, code: int) -> None:
    """One request finds out; the others are told without asking; redirects go nowhere; the door opens by itself."""
    elsewhere = await serve()
    refusal = http.status(code, {}, f"Location: {elsewhere.url}/v1/chat/completions")
    server = await serve(refusal)
    client = await start(server.url, breaker={"reset_timeout_s": 60})
    assert client.held_reason() is None
    for _ in range(3):
        with pytest.raises(Misconfigured, match=str(code)):
            await ask(client)
    assert len(server.requests) == 1
    assert (client.held_reason() or "").startswith(f"misconfigured: {code} from {server.url}")
    server.script.append(refusal)
    hasty = await start(server.url, breaker={"reset_timeout_s": 0.1})
    with pytest.raises(Misconfigured, match=str(code)):
        await ask(hasty)
    assert (await ask(hasty, wait_s=math.inf)).text == "ok"
    assert hasty.held_reason() is None
    assert elsewhere.connections == 0


@pytest.mark.parametrize("error", [http.status(402), http.status(429, {"error": {"code": "insufficient_quota"}})])
async def test_a_spent_quota_is_no_congestion(serve: Serve, start: Start, error: http.Step) -> None:
    """One call finds out, the breaker opens and says so loudly; another endpoint answers, and all that follow."""
    empty, paid = await serve(default=error), await serve()
    client = await start(empty.url, paid.url, max_attempts=2, breaker={"reset_timeout_s": 60})
    with capture_logs() as lines:
        for _ in range(20):
            assert (await ask(client)).endpoint == paid.url
    assert (len(empty.requests), len(paid.requests)) == (1, 20)
    [opened] = [line for line in lines if line["event"] == "breaker_opened"]
    assert (opened["reason"], opened["log_level"]) == ("quota_spent", "warning")
    assert "has to pay" in opened["why"]


async def test_a_quota_that_is_paid_is_used_again(serve: Serve, start: Start) -> None:
    """Who holds waits; each second one call looks whether somebody has paid."""
    server = await serve(*[http.status(402)] * 2)
    client = await start(server.url, max_attempts=3, breaker={"reset_timeout_s": 0.05})
    assert (await ask(client, wait_s=math.inf)).text == "ok"
    assert len(server.requests) == 3


async def test_a_ca_file_that_cannot_be_read_is_a_fault_of_configuration(start: Start) -> None:
    """The worker ends with 78 before it takes a record."""
    with pytest.raises(Exit, match="No such file") as raised:
        await start("https://127.0.0.1:1", ca_file="/nonexistent/ca.pem")
    assert raised.value.code == EX_CONFIG


@pytest.mark.fault("E23")
async def test_e23_refused_goes_to_the_next_endpoint_at_once(serve: Serve, start: Start) -> None:
    """A refused connection costs no pause when there is another endpoint, and five in a row open the breaker."""
    good = await serve()
    client = await start(refused_url(), good.url, max_attempts=2, breaker={"reset_timeout_s": 60})
    for _ in range(20):
        assert (await ask(client)).text == "ok"
    assert len(good.requests) == 20
    alone = await start(refused_url(), breaker={"reset_timeout_s": 60})
    for _ in range(5):
        with pytest.raises(ConnectFailed, match="refused"):
            await ask(alone)
    with pytest.raises(BreakerOpen):
        await ask(alone)


@pytest.mark.fault("E23")
async def test_a_pause_only_where_nobody_else_can_be_asked(start: Start) -> None:
    """The next attempt waits when it goes to the same endpoint, and begins at once when there is another."""
    alone, both = await start(refused_url(), max_attempts=3), await start(refused_url(), refused_url(), max_attempts=3)
    for client, pauses in ((alone, True), (both, False)):
        course = Course(prompt_for(client.frame(ASK)), passage(), 0.0, failed=frozenset(client._endpoints[:1]))
        assert (client._retries.pause_s(course, ServerFault("500")) > 0) is pauses


async def test_500_is_tried_again_up_to_max_attempts(serve: Serve, start: Start) -> None:
    """Servers answer 500 to what is wrong for good: attempts are counted, then the last failure is raised."""
    server = await serve(http.status(500), http.status(500), http.status(500), http.status(500))
    client = await start(server.url, max_attempts=3)
    with pytest.raises(ServerFault):
        await ask(client)
    assert len(server.requests) == 3
    way = passage()
    assert (await ask(client, way)).text == "ok"
    assert way.attempts == 2


async def test_no_attempt_begins_that_the_deadline_would_cut(serve: Serve, start: Start) -> None:
    """When the pause before the next attempt would outlast the deadline, the failure is raised now."""
    server = await serve(default=http.status(500))
    client = await start(server.url, max_attempts=1000)
    began_s = monotonic_s()
    with pytest.raises(ServerFault):
        await ask(client, passage(deadline_s=LEAST_S + 0.5))
    assert monotonic_s() - began_s < 10


async def test_a_hopeless_attempt_is_not_made(serve: Serve, start: Start) -> None:
    """With less than a tenth of `timeout_s` left a record is not tried again: 429 to the end is Busy, not a timeout."""
    server = await serve(http.status(429, {}, "retry-after-ms: 300"), default=http.hang())
    client = await start(server.url)
    with pytest.raises(Busy):
        await ask(client, passage(deadline_s=LEAST_S + 0.2))
    assert len(server.requests) == 1


async def test_holders_wait_for_the_model_to_come_back(serve: Serve, start: Start) -> None:
    """Ten records hold through an outage: one trial at a time is sent, all are answered, in the end."""
    server = await serve(*[http.status(500)] * 2)
    client = await start(server.url, breaker={"min_calls": 1, "reset_timeout_s": 0.1})
    with pytest.raises(ServerFault):
        await ask(client)

    async def hold() -> Reply:
        while True:
            try:
                return await ask(client, wait_s=math.inf)
            except ServerFault:
                continue

    replies = await asyncio.gather(*(hold() for _ in range(10)))
    assert [reply.text for reply in replies] == ["ok"] * 10
    first, second, third, fourth, *_ = server.requests
    assert second.at_s - first.at_s >= 0.09
    assert third.at_s - second.at_s >= 0.09
    assert fourth.at_s > third.at_s


async def test_never_more_calls_than_slots(serve: Serve, start: Start) -> None:
    """Fifty records on three slots: three requests at a time, all answered."""
    gate = asyncio.Event()
    server = await serve(*[http.once(gate, http.answer())] * 3)
    client = await start(server.url, slots=3)
    tasks = [asyncio.create_task(ask(client)) for _ in range(50)]
    await until(lambda: server.running == 3)
    await asyncio.sleep(0.05)
    gate.set()
    await asyncio.gather(*tasks)
    assert server.most_running == 3
    assert len(server.requests) == 50


async def test_cancelling_a_call_closes_its_connection(serve: Serve, start: Start) -> None:
    """The server sees the connection end, the slot is free, the breaker has no opinion."""
    server = await serve(http.hang())
    client = await start(server.url, slots=1)
    task = asyncio.create_task(ask(client))
    await until(lambda: server.running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not server.running)
    assert (await ask(client)).text == "ok"


async def test_i10_no_error_shows_a_secret_or_the_prompt(serve: Serve, start: Start) -> None:
    """Neither key, userinfo nor prompt is in the text of any failure, nor of what caused it, nor in a metric."""
    server = await serve(
        http.status(401, {"error": {"message": "bad key canary for 'a ticket'"}}),
        http.status(400, {"error": {"message": "bad: canary 'a ticket'"}}),
        http.garbage(),
        http.cut(),
    )
    url = server.url.replace("http://", "http://me:canary@")
    for _ in range(4):
        client = await start(url, api_key="canary")
        with pytest.raises(NoAnswer) as raised:
            await ask(client)
        text = f"{raised.value} {client.held_reason()}"
        assert "canary" not in text
        assert "a ticket" not in text
        assert re.search(r"127\.0\.0\.1", text)
    assert "canary" not in repr([metric.samples for metric in REGISTRY.collect()])


async def test_a_probe_asks_once_and_explains(serve: Serve, start: Start) -> None:
    """dry-run: one request, no waiting, the server's own words, the key starred out."""
    server = await serve(http.status(404, {"error": {"message": "The model `x` does not exist (canary)"}}))
    client = await start(server.url, api_key="canary", max_attempts=3)
    with pytest.raises(Misconfigured, match=r"configured model.*it says: The model `x` does not exist \(\*\*\*\)"):
        await client.probe(ASK)
    assert client.held_reason() is None
    assert (await client.probe(ASK)).text == "ok"
    assert len(server.requests) == 2


async def test_calls_are_counted(serve: Serve, start: Start) -> None:
    """Outcomes, retries and tokens appear in the model's series."""
    server = await serve(http.status(500))

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"model": "tiny", **labels}) or 0.0

    before = [value("penstock_model_calls_total", outcome=o) for o in ("ok", "server_error")]
    tokens = value("penstock_model_tokens_total", direction="input")
    await ask(await start(server.url, max_attempts=2))
    after = [value("penstock_model_calls_total", outcome=o) for o in ("ok", "server_error")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1]
    assert value("penstock_model_tokens_total", direction="input") - tokens == 11
    assert value("penstock_model_slots", endpoint=server.url) == 4
    assert value("penstock_breaker_state", endpoint=server.url) == 0


async def test_slots_that_are_found_are_seen_from_outside(serve: Serve, start: Start) -> None:
    """`max_in_flight: auto`: the gauge says what it keeps to, a counter and one log line each why that changed."""
    server = await serve()
    endpoint = {"url": server.url, "max_in_flight": "auto", "auto_max": 8}
    client = await start(server.url, endpoints=[endpoint])

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"model": "tiny", "endpoint": server.url, **labels}) or 0.0

    assert (value("penstock_model_slots"), value("penstock_model_slots_found")) == (4, 4)
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(_ask_until(client, lambda: value("penstock_model_slots_found") == 8))
    assert value("penstock_model_slots_changes_total", reason="doubled") == 1
    assert value("penstock_model_slots") == 8
    said = [line for line in lines if line["event"] == "slots_changed"]
    assert [(line["reason"], line["before"], line["slots"], line["measured_slots"]) for line in said] == [
        ("doubled", 4, 8, 4)
    ]
    assert said[0]["mean_s"] >= 0
    assert said[0]["per_s"] > 0


async def _ask_until(client: Client, condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await ask(client)
