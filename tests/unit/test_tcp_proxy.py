"""The proxy that fault tests put between worker and broker does to a link what its methods say."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.tcp_proxy import TcpProxy

STILL_S = 0.3
"""How long nothing must arrive for us to say that nothing passes."""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[TcpProxy]:
    """A proxy in front of a server that sends back what it gets."""
    async with await asyncio.start_server(_echo, "127.0.0.1", 0) as server:
        with TcpProxy(server.sockets[0].getsockname()[1]) as running:
            yield running


async def _connected(proxy: TcpProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
    return reader, writer


async def test_bytes_and_the_end_of_stream_pass_both_ways(proxy: TcpProxy) -> None:
    """A healthy link changes nothing, and is counted."""
    reader, writer = await _connected(proxy)
    writer.write(b"x" * 1_000_000)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(-1), 30) == b"x" * 1_000_000
    writer.close()
    assert (proxy.accepted, proxy.up_bytes, proxy.down_bytes) == (1, 1_000_005, 1_000_005)


async def test_a_cut_link_passes_nothing_until_it_is_healed(proxy: TcpProxy) -> None:
    """Old connections stay open, new ones are accepted and silent, and what was sent arrives afterwards."""
    reader, writer = await _connected(proxy)
    proxy.cut()
    writer.write(b"later")
    new_reader, new_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    new_writer.write(b"new")
    for silent in (reader, new_reader):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(silent.read(1), STILL_S)
    proxy.heal()
    assert await asyncio.wait_for(reader.readexactly(5), 10) == b"later"
    assert await asyncio.wait_for(new_reader.readexactly(3), 10) == b"new"
    writer.close()
    new_writer.close()


async def test_a_reset_breaks_every_connection_and_lets_new_ones_work(proxy: TcpProxy) -> None:
    """The client sees RST, not an end of stream."""
    reader, writer = await _connected(proxy)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 10)
    writer.close()
    _, again = await _connected(proxy)
    again.close()


async def test_latency_is_added_in_each_direction(proxy: TcpProxy) -> None:
    """A round trip takes twice the latency at least, and bytes that follow each other do not wait for each other."""
    proxy.latency_s = 0.5
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    began_s = time.monotonic()
    for _ in range(20):
        writer.write(b"x")
        await asyncio.sleep(0.01)
    await asyncio.wait_for(reader.readexactly(20), 30)
    took_s = time.monotonic() - began_s
    writer.close()
    assert 2 * 0.5 <= took_s < 20 * 0.5


async def test_bandwidth_is_shared_by_all_connections(proxy: TcpProxy) -> None:
    """Two connections with 50 kB each need a second together at 100 kB/s."""
    proxy.bytes_per_s = 100_000
    began_s = time.monotonic()

    async def exchange() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x" * 50_000)
        await reader.readexactly(50_000)
        writer.close()

    await asyncio.wait_for(asyncio.gather(exchange(), exchange()), 30)
    assert time.monotonic() - began_s >= 1.0


async def test_an_upstream_that_is_gone_shows_as_a_broken_connection(proxy: TcpProxy) -> None:
    """Nothing listens there: the client must not wait for ever."""
    proxy.upstream_port = 1
    with pytest.raises(ConnectionResetError):  # it may come so soon that the client has not yet connected
        await asyncio.wait_for(_spoken(proxy.port), 10)


async def _spoken(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.read(1)
    finally:
        writer.close()
