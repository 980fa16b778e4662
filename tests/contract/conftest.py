"""Servers that misbehave and clients before them, closed at the end of a test: clients first."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support import fault_server as http
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import Serve, Start, client_for
from workers.llm import Client


@pytest.fixture
async def stack(http_client: str) -> AsyncIterator[AsyncExitStack]:
    """Closes what a test opened, the last first; with each HTTP client in turn."""
    del http_client
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def serve(stack: AsyncExitStack) -> Serve:
    """Start a server with a script."""

    async def start(*script: http.Step, default: http.Step | None = None, **more: Any) -> FaultServer:
        return await stack.enter_async_context(FaultServer(*script, default=default, **more))

    return start


@pytest.fixture
def start(stack: AsyncExitStack) -> Start:
    """Start a client; one attempt unless told otherwise."""

    async def start(*urls: str, **changes: Any) -> Client:
        client = client_for(*urls, **{"max_attempts": 1, **changes})
        await client.start()
        stack.push_async_callback(client.close)
        return client

    return start
