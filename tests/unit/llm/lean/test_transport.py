"""The lean transport over real sockets, on both event loops: what the contract suite does not look at."""

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support import fault_server as http
from tests.support.certificates import make_authority, serving
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import model_settings, until
from tests.support.scripted_resolver import ScriptedResolver
from workers.clock import monotonic_s
from workers.errors import ConnectFailed, ConnectionLost, TimedOut
from workers.llm.lean import LeanTransport
from workers.llm.lean.dialing import Names
from workers.llm.transport import Target, target

PATH = "/v1/chat/completions"
BODY = b'{"a": "ticket"}'

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a course on each kind of event loop, bounded; nothing it left may be complained about."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    complaints: list[dict[str, Any]] = []

    async def bounded(course: Coroutine[Any, Any, None]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(60):
            await course

    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda course: runner.run(bounded(course))
    gc.collect()
    assert complaints == []


@asynccontextmanager
async def lean(
    server: FaultServer, resolver: ScriptedResolver | None = None, url: str = "", **changes: Any
) -> AsyncIterator[tuple[LeanTransport, Target]]:
    """Yield a started transport, and where to post."""
    transport = LeanTransport(model_settings(url or server.url, **changes), resolver)
    await transport.start()
    yield transport, target(url or server.url, PATH)
    await transport.close()
    await until(lambda: not server.running)


def test_posts_over_one_connection_and_any_size(run: Run) -> None:
    """256 KiB of body wait in the transport until the server reads on; the connection is kept and asked again."""
    large = b'"' + b"x" * (256 << 10) + b'"'

    async def course() -> None:
        async with FaultServer() as server, lean(server) as (transport, to):
            for body in (BODY, large, BODY, large):
                status, headers, answer = await transport.post(to, body, 20.0)
                assert (status, headers.get("content-TYPE")) == (200, "application/json")
                assert answer.startswith(b"{")
            assert [seen.body for seen in server.requests] == [BODY, large, BODY, large]
            assert server.connections == 1
            assert server.requests[0].headers["host"] == server.url.removeprefix("http://")
            assert server.requests[0].headers["user-agent"] == "penstock"

    run(course())


def test_posts_with_tls(run: Run, tmp_path: Path) -> None:
    """The name is checked, the connection kept, a large body passes; without the authority nobody is asked."""
    authority = make_authority(tmp_path)
    large = b'"' + b"x" * (256 << 10) + b'"'

    async def course() -> None:
        async with FaultServer(tls=serving(tmp_path)) as server:
            async with lean(server, ca_file=str(authority), connect_timeout_s=20.0) as (transport, to):
                for body in (BODY, large, BODY):
                    assert (await transport.post(to, body, 20.0))[0] == 200
                assert server.connections == 1
            async with lean(server, connect_timeout_s=20.0) as (transport, to):
                with pytest.raises(ConnectFailed, match="certificate"):
                    await transport.post(to, BODY, 20.0)
            assert len(server.requests) == 3

    run(course())


@pytest.mark.parametrize("ca_file", [False, True])
async def test_certificates_are_always_checked(tmp_path: Path, *, ca_file: bool) -> None:
    """Whatever `ca_file` says; plain http needs no authorities."""
    changes = {"ca_file": str(make_authority(tmp_path))} if ca_file else {}
    context = LeanTransport(model_settings("https://llm", **changes))._tls()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert LeanTransport(model_settings("http://llm"))._tls() is None


def test_many_at_once_each_get_their_own_answer(run: Run) -> None:
    """Two hundred calls on sixteen connections, answered in any order: the body that comes back is the call's own."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        del reader
        number = server.requests[-1].body
        await asyncio.sleep(int(number) % 7 / 1_000)
        writer.write(http.http(200, number))
        return True

    server = FaultServer(default=echo)

    async def course() -> None:
        async with server, lean(server, slots=16) as (transport, to):
            slots = asyncio.Semaphore(16)

            async def one(number: int) -> None:
                async with slots:
                    assert (await transport.post(to, b"%d" % number, 20.0))[2] == b"%d" % number

            await asyncio.gather(*map(one, range(200)))
            assert server.connections <= 16

    run(course())


def test_an_answer_too_many_is_nobodys(run: Run) -> None:
    """I14: a server that answers twice, at once or a moment later, gets no second request on that connection."""
    ours, late = http.http(200, b'"ours"'), http.http(200, b'"late"')

    async def at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(ours + late)
        return True

    async def later(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(ours)
        await asyncio.sleep(0.02)
        writer.write(late)
        return True

    async def course() -> None:
        async with FaultServer(at_once, later) as server, lean(server) as (transport, to):
            for _ in range(2):
                assert (await transport.post(to, BODY, 20.0))[2] == b'"ours"'
                await until(lambda: not server.running)
                await asyncio.sleep(0.05)
            assert b"late" not in (await transport.post(to, BODY, 20.0))[2]
            assert [seen.connection for seen in server.requests] == [1, 2, 3]

    run(course())


@pytest.mark.parametrize("unseen", [http.http(200, b'"late"'), b""], ids=["an answer", "the end"])
def test_what_came_on_an_idle_connection_and_was_not_read_yet_is_nobodys(run: Run, unseen: bytes) -> None:
    """I14: the loop was busy while a second answer came; it is not taken for that to the next request."""
    served = list[asyncio.StreamWriter]()

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        served.append(writer)
        writer.write(http.http(200, b'"ours"'))
        return True

    async def course() -> None:
        async with FaultServer(default=note) as server, lean(server) as (transport, to):
            assert (await transport.post(to, BODY, 20.0))[2] == b'"ours"'
            peer = socket.socket(fileno=os.dup(served[0].get_extra_info("socket").fileno()))
            with peer:  # at once: the loop does not turn before the next post
                if unseen:
                    peer.sendall(unseen)
                else:
                    peer.shutdown(socket.SHUT_RDWR)
            assert (await transport.post(to, BODY, 20.0))[2] == b'"ours"'
            assert [seen.connection for seen in server.requests] == [1, 2]

    run(course())


class Refusing(FaultServer):
    """Answers 413 to a head, and reads no body before."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        del connection
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http.http(413, b"{}"))
        while await reader.read(1 << 20):
            pass


def test_a_refusal_that_comes_before_all_was_sent_is_read(run: Run) -> None:
    """413 after the head: the answer counts, the connection does not."""

    async def course() -> None:
        async with Refusing() as server, lean(server) as (transport, to):
            for _ in range(2):
                assert (await transport.post(to, b"x" * (32 << 20), 20.0))[0] == 413
            assert server.connections == 2
            await until(lambda: not server._tasks)

    run(course())


def test_each_call_has_its_own_timeout_and_one_timer_ends_them(run: Run) -> None:
    """Long before short and short before long; the server sees the connections end; none is early."""

    async def course() -> None:
        async with FaultServer(default=http.hang()) as server, lean(server, slots=8) as (transport, to):

            async def one(timeout_s: float) -> float:
                began_s = monotonic_s()
                with pytest.raises(TimedOut, match=f"no complete answer from .* in {timeout_s:.3g} s"):
                    await transport.post(to, BODY, timeout_s)
                return monotonic_s() - began_s - timeout_s

            late_s = await asyncio.gather(*map(one, (0.4, 0.1, 0.3, 0.13, 0.2)))
            assert min(late_s) > -0.005
            assert max(late_s) < 5
            await until(lambda: not server.running)
            assert not transport._busy

    run(course())


def test_idle_connections_are_closed_before_the_server_does_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same timer, while nobody asks. Here after less time."""
    monkeypatch.setattr("workers.llm.lean.idle.KEEP_ALIVE_S", 0.1)
    monkeypatch.setattr("workers.llm.lean.transport.KEEP_ALIVE_S", 0.1)

    async def course() -> None:
        async with FaultServer() as server, lean(server) as (transport, to):
            await transport.post(to, BODY, 20.0)
            assert len(server._tasks) == 1
            await until(lambda: not server._tasks)
            await transport.post(to, BODY, 20.0)
            assert server.connections == 2

    run(course())


def test_each_address_of_a_name_is_tried(run: Run) -> None:
    """One that refuses costs nothing but a try."""

    async def course() -> None:
        async with FaultServer(default=http.raw(http.http(200, b"{}", "Connection: close"))) as server:
            resolver = ScriptedResolver("127.0.0.2", "127.0.0.1", port=server.port)
            named = f"http://llm.example.com:{server.port}"
            async with lean(server, resolver, named, connect_timeout_s=20.0) as (transport, to):
                for _ in range(4):
                    assert (await transport.post(to, BODY, 20.0))[0] == 200
                assert resolver.asked == 1
                assert server.requests[0].headers["host"] == f"llm.example.com:{server.port}"
            resolver = ScriptedResolver("127.0.0.2", "127.0.0.3", port=server.port)
            async with lean(server, resolver, named) as (transport, to):
                with pytest.raises(ConnectFailed, match="Connection refused"):
                    await transport.post(to, BODY, 20.0)
            async with lean(server, ScriptedResolver(), named) as (transport, to):
                with pytest.raises(ConnectFailed, match="cannot be resolved"):
                    await transport.post(to, BODY, 20.0)

    run(course())


async def test_the_addresses_of_a_name_take_turns() -> None:
    """Each connection begins with another one, so that all of a service's servers get some."""
    resolver = ScriptedResolver("10.0.0.1", "10.0.0.2", port=80)
    names = Names(resolver)
    first = [(await names.addresses("llm.example.com", 80))[0][0] for _ in range(4)]
    assert first == ["10.0.0.1", "10.0.0.2"] * 2
    assert await names.addresses("10.0.0.9", 80) == [("10.0.0.9", 80)]
    assert resolver.asked == 1


def test_an_address_that_never_answers_costs_its_share_of_the_time(run: Run, tmp_path: Path) -> None:
    """A silent first address of two takes half of `connect_timeout_s`, TLS included; then the next has its turn."""
    authority = make_authority(tmp_path)

    async def course() -> None:
        async with FaultServer(tls=serving(tmp_path, name="DNS:llm.example.com")) as server:
            resolver = ScriptedResolver("127.0.0.2", "127.0.0.1", port=server.port)
            limits = {"ca_file": str(authority), "connect_timeout_s": 4.0}
            with socket.create_server(("127.0.0.2", server.port)):  # takes connections, and says nothing
                async with lean(server, resolver, "https://llm.example.com", **limits) as (transport, to):
                    began_s = monotonic_s()
                    assert (await transport.post(to, BODY, 20.0))[0] == 200
                    assert monotonic_s() - began_s >= 1.9

    run(course())


def test_one_lookup_for_all_who_wait_for_it(run: Run) -> None:
    """Also when some of them give up meanwhile."""

    async def course() -> None:
        async with FaultServer() as server:
            gate = asyncio.Event()

            class Slow(ScriptedResolver):
                async def resolve(self, *args: Any, **more: Any) -> Any:
                    await gate.wait()
                    return await super().resolve(*args, **more)

            resolver = Slow("127.0.0.1", port=server.port)
            async with lean(server, resolver, "http://llm.example.com") as (transport, to):
                with pytest.raises(TimedOut):
                    await transport.post(to, BODY, 0.05)
                calls = [asyncio.create_task(transport.post(to, BODY, 20.0)) for _ in range(4)]
                await asyncio.sleep(0)
                calls.pop().cancel()
                gate.set()
                assert [(await call)[0] for call in calls] == [200] * 3
                assert resolver.asked == 1

    run(course())


def test_closing_ends_running_calls_and_lookups(run: Run) -> None:
    """Nobody waits for ever on a transport that is gone; nothing is left behind."""

    async def course() -> None:
        async with FaultServer(default=http.hang()) as server:
            async with lean(server) as (transport, to):
                call = asyncio.create_task(transport.post(to, BODY, 20.0))
                await until(lambda: server.running)
                await transport.close()
                with pytest.raises(ConnectionLost):
                    await call
                with pytest.raises(RuntimeError):
                    await transport.post(to, BODY, 20.0)
            await until(lambda: not server._tasks)

    run(course())


def test_closing_ends_idle_connections_and_lookups(run: Run) -> None:
    """The server sees the end of what nobody used, and no task is left that waits for a name server."""

    class Silent(ScriptedResolver):
        async def resolve(self, *_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

    async def course() -> None:
        async with FaultServer() as server:
            async with lean(server) as (transport, to):
                await transport.post(to, BODY, 20.0)
                assert len(server._tasks) == 1
            await until(lambda: not server._tasks)
            async with lean(server, Silent(), "http://llm.example.com") as (transport, to):
                with pytest.raises(TimedOut):
                    await transport.post(to, BODY, 0.05)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(course())


def test_a_reset_is_not_answered_by_asking_again(run: Run) -> None:
    """Unlike a connection that the server closed as idle (E3): one request, one failure, and nothing kept."""

    async def course() -> None:
        last = http.raw(http.http(200, b"{}", "Connection: close"))
        async with FaultServer(http.answer(), http.reset(), last) as server, lean(server) as (transport, to):
            await transport.post(to, BODY, 20.0)
            with pytest.raises(ConnectionLost, match="reset"):
                await transport.post(to, BODY, 20.0)
            await transport.post(to, BODY, 20.0)
            assert [seen.connection for seen in server.requests] == [1, 1, 2]
            assert [len(idle) for idle in transport._idle.values()] == [0]

    run(course())


def test_never_more_calls_than_slots(run: Run) -> None:
    """The client's slots are the limit; a call past them is a mistake of ours, told before anything is sent."""

    async def course() -> None:
        async with FaultServer(default=http.hang()) as server, lean(server, slots=2) as (transport, to):
            calls = [asyncio.create_task(transport.post(to, BODY, 20.0)) for _ in range(3)]
            await until(lambda: server.running == 3)
            with pytest.raises(RuntimeError, match="slots"):
                await transport.post(to, BODY, 20.0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await until(lambda: not server.running)
            assert server.connections == 3

    run(course())


def test_no_header_can_bring_another(run: Run) -> None:
    """A line end in a key would: refused before anything is sent."""

    async def course() -> None:
        async with FaultServer() as server, lean(server, api_key="a\r\nX-Other: b") as (transport, to):
            with pytest.raises(ValueError, match="line end") as raised:
                await transport.post(to, BODY, 20.0)
            assert "Other" not in str(raised.value)
            assert server.connections == 0

    run(course())


def test_another_path_is_read_with_get(run: Run) -> None:
    """None for what is no 200."""

    async def course() -> None:
        async with FaultServer(http.status(200, {"a": 1}), http.status(404)) as server, lean(server) as (transport, to):
            assert await transport.get(to, "/props", 20.0) == b'{"a": 1}'
            assert await transport.get(to, "/props", 20.0) is None
            assert [(seen.method, seen.path, seen.body) for seen in server.requests] == [("GET", "/props", b"")] * 2

    run(course())
