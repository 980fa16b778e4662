"""Settings for clients under test: small limits, and time enough for a busy machine; any of them to be replaced."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp.abc import AbstractResolver

from tests.support.fault_server import FaultServer
from workers.llm import Client
from workers.ports import Ask, Frame
from workers.records import Passage, Prompt, Reply
from workers.settings.servers import ModelSettings

ASK = Ask(
    name="triage",
    system="Sort tickets.",
    schema={"type": "object", "properties": {"category": {"type": "string"}}, "required": ["category"]},
    max_tokens=64,
    temperature=0.0,
)


Serve = Callable[..., Coroutine[Any, Any, FaultServer]]
"""The fixture `serve`: starts a server with a script."""

Start = Callable[..., Coroutine[Any, Any, Client]]
"""The fixture `start`: starts a client, with one attempt unless told otherwise."""


PATIENT = {"timeout_s": 60.0, "connect_timeout_s": 60.0}
"""A call that nothing is wrong with does not time out, however long the machine does something else meanwhile."""

LEAST_S = PATIENT["timeout_s"] / 10
"""No further call begins with less of a deadline left (`workers.llm.retries`)."""
TOO_SHORT_S = 0.9 * LEAST_S
"""A deadline within which a refused call is not followed by another."""

HTTP_CLIENT = "lean"
"""What clients under test speak HTTP with, unless told otherwise; the fixture `http_client` sets it to each in turn."""


def model_settings(*urls: str, slots: int = 4, **changes: Any) -> ModelSettings:
    """Return settings of a model behind these URLs."""
    endpoints = [{"url": url, "max_in_flight": slots} for url in urls]
    settings = {"model": "tiny", "endpoints": endpoints, "http_client": HTTP_CLIENT}
    return ModelSettings.model_validate({**settings, **PATIENT, **changes})


def client_for(*urls: str, slots: int = 4, resolver: AbstractResolver | None = None, **changes: Any) -> Client:
    """Return a client that is not started yet."""
    return Client("tiny", model_settings(*urls, slots=slots, **changes), resolver)


def prompt_for(frame: Frame, text: str = '"a ticket"') -> Prompt:
    """Return a prompt whose user text is `text`, given as JSON."""
    return Prompt(frame.head + text.encode() + frame.tail)


def passage(deadline_s: float = 60.0) -> Passage:
    """Return a passage that has not begun."""
    return Passage(deadline_s=deadline_s)


async def ask(client: Client, way: Passage | None = None, wait_s: float = 0.0) -> Reply:
    """Ask once, bounded."""
    async with asyncio.timeout(90):
        return await client.complete(prompt_for(client.frame(ASK)), way or passage(), wait_s=wait_s)


_refusing: list[socket.socket] = []


def refused_url() -> str:
    """Return a URL on which nobody listens: its port stays bound, so that nobody else gets it."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    _refusing.append(sock)
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, 30 s at most."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)
