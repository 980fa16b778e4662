"""E27: a server that loads its model at the first call is asked before records are read, and nobody is blamed."""

import time

import pytest

from tests.support import fault_server as http
from tests.support.llm_settings import Serve, Start, ask, refused_url

LOADING = http.status(
    503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, "Retry-After: 0.05"
)


@pytest.mark.fault("E27")
async def test_a_server_that_loads_its_model_is_waited_for(serve: Serve, start: Start) -> None:
    """Asked for one token again and again until the model is there; the breaker has seen nothing of it."""
    server = await serve(LOADING, LOADING, http.answer("o", "length"))
    client = await start(server.url, warm_up_s=20, breaker={"min_calls": 1, "connect_failures": 1})
    await client.warm_up()
    assert [body["max_tokens"] for body in server.bodies] == [1, 1, 1]  # type: ignore[index]
    assert client._endpoints[0].breaker.closed
    assert client._endpoints[0].limit == client._endpoints[0].slots
    assert (await ask(client)).finish_reason == "stop"


@pytest.mark.fault("E27")
async def test_a_cold_first_call_may_take_longer_than_any_other(serve: Serve, start: Start) -> None:
    """`timeout_s` is for records; the first call has `warm_up_s`."""
    server = await serve(http.later(lambda: 0.6, http.answer("o")))
    client = await start(server.url, timeout_s=0.2, connect_timeout_s=0.2, warm_up_s=20)
    began_s = time.monotonic()
    await client.warm_up()
    assert time.monotonic() - began_s >= 0.6
    assert len(server.requests) == 1


@pytest.mark.fault("E27")
async def test_a_warm_up_that_fails_ends_in_time_and_hinders_nothing(start: Start) -> None:
    """Nobody there: the worker starts all the same, and the records meet what they meet."""
    client = await start(refused_url(), warm_up_s=1.5, breaker={"min_calls": 1, "connect_failures": 1})
    began_s = time.monotonic()
    await client.warm_up()
    assert time.monotonic() - began_s < 15
    assert client._endpoints[0].breaker.closed


async def test_without_warm_up_nothing_is_asked(serve: Serve, start: Start) -> None:
    """A call costs money: only who asks for it gets it."""
    server = await serve()
    await (await start(server.url)).warm_up()
    assert server.requests == []
