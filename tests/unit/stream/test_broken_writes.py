"""A request on a connection that closed a moment ago, on the loop that the worker uses."""

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from workers.stream import broken_writes


async def _send_after_the_end(versions: tuple[int, int] = (0, 5)) -> None:
    """Open a connection, lose it, and send before its reader has noticed."""
    server = await asyncio.start_server(lambda _, ours: ours.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = AIOKafkaConnection("127.0.0.1", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection._reader, connection._writer = reader, writer
    connection._read_task = asyncio.ensure_future(asyncio.sleep(10))  # one that has not noticed
    connection._versions = {MetadataRequest.API_KEY: versions}
    writer.transport.abort()
    await asyncio.sleep(0)
    try:
        await connection.send(MetadataRequest([]))
    finally:
        server.close()


def test_a_write_on_a_closed_connection_is_a_broken_connection() -> None:
    """Tasks of aiokafka live on a KafkaError and die of anything else: uvloop's RuntimeError must not reach them."""
    broken_writes.tolerate()
    with pytest.raises(KafkaConnectionError):
        uvloop.run(_send_after_the_end())


def test_a_version_that_cannot_be_spoken_stays_what_it_is() -> None:
    """NotImplementedError is a RuntimeError too, and says that the broker is too old or new, not that it is gone."""
    broken_writes.tolerate()
    with pytest.raises(NotImplementedError):
        uvloop.run(_send_after_the_end(versions=(90, 99)))


def test_without_it_uvloops_own_error_would_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned aiokafka still needs it: when this fails, `broken_writes` can go."""
    monkeypatch.setattr(AIOKafkaConnection, "send", broken_writes._send)
    with pytest.raises(RuntimeError):
        uvloop.run(_send_after_the_end())
