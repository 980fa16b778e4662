"""The probes, asked over loopback as a kubelet and Prometheus ask."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from workers import metrics, probes
from workers.errors import Exit


@dataclass
class Health:
    """Says what the test wants."""

    reasons: list[str] = field(default_factory=list)
    why_stuck: str | None = None

    def reasons_not_ready(self) -> list[str]:
        """As told."""
        return self.reasons

    def stuck(self) -> str | None:
        """As told."""
        return self.why_stuck


class Clock:
    """Stands still until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


@dataclass
class Served:
    """Running probes and what they are told."""

    probes: probes.Probes
    health: Health
    clock: Clock

    async def ask(self, raw: str) -> tuple[int, dict[str, str], bytes]:
        """Send raw request lines; return status, headers and body."""
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.probes.port)
            writer.write(f"{raw}\r\n\r\n".encode())
            answer = await reader.read()  # one request per connection: the end of the answer is its end
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status_line.split()[1]), headers, body

    async def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """GET a path."""
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: x")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Probes on a free port."""
    health, clock = Health(), Clock()
    server = probes.Probes("127.0.0.1", 0, health, clock=clock)
    await server.start()
    yield Served(server, health, clock)
    await server.close()


async def test_livez_fails_only_when_stuck(served: Served) -> None:
    """Not being ready is no reason for a restart."""
    served.health.reasons = ["no broker"]
    status, _, body = await served.get("/livez")
    assert (status, orjson.loads(body)) == (200, {"live": True, "reason": None})
    served.health.why_stuck = "no record for 300 s"
    status, _, body = await served.get("/livez")
    assert (status, orjson.loads(body)) == (503, {"live": False, "reason": "no record for 300 s"})


async def test_readyz_says_why_not(served: Served) -> None:
    """Readiness is 200, or 503 with every reason."""
    status, _, body = await served.get("/readyz")
    assert (status, orjson.loads(body)) == (200, {"ready": True, "reasons": []})
    served.health.reasons = ["rebalancing", "task triage: paused by its guard"]
    status, _, body = await served.get("/readyz")
    assert status == 503
    assert orjson.loads(body) == {"ready": False, "reasons": ["rebalancing", "task triage: paused by its guard"]}


async def test_metrics_are_prometheus_text(served: Served) -> None:
    """The text parses, holds our series and the readiness of this moment."""
    status, headers, body = await served.get("/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert families["penstock_ready"].samples[0].value == 1
    assert "process_cpu_seconds" in families


async def test_one_rendering_serves_everybody_for_a_second(served: Served) -> None:
    """Scrapes within a second get the same text; after it they get a new one."""
    metrics.LOOP_LAG_S.set(0.25)
    first = await served.get("/metrics")
    metrics.LOOP_LAG_S.set(0.75)
    assert (await served.get("/metrics"))[2] == first[2]
    served.clock.now_s += 1.0
    assert b"penstock_event_loop_lag_seconds 0.75" in (await served.get("/metrics"))[2]


async def test_version_names_the_builds(served: Served) -> None:
    """A person can see what runs."""
    status, _, body = await served.get("/version")
    assert status == 200
    assert orjson.loads(body) == probes.versions()
    assert {"penstock", "python", "aiokafka", "faust-streaming"} <= set(orjson.loads(body))


async def test_nothing_else_is_served(served: Served) -> None:
    """Other paths, methods and requests with a body are refused; no answer tells the server's version."""
    answers = [
        await served.get("/"),
        await served.get("/metrics/../etc/passwd"),
        await served.ask("POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0"),
        await served.ask("DELETE /metrics HTTP/1.1\r\nHost: x"),
        await served.ask("GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000"),
        await served.get("/livez"),
    ]
    assert [status for status, _, _ in answers] == [404, 404, 405, 405, 413, 200]
    assert {headers["server"] for _, headers, _ in answers} == {"penstock"}
    assert answers[2][1]["allow"] == "GET, HEAD"


async def test_garbage_is_answered_and_hurts_nobody(served: Served) -> None:
    """What is no HTTP gets a 400, and the next probe its answer."""
    status, _, _ = await served.ask("\x00\x01 nonsense")
    assert status == 400
    assert (await served.get("/livez"))[0] == 200


async def test_connections_that_never_end_do_not_keep_a_probe_out(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all connections are taken by silent peers, the oldest is cut and a new probe is answered."""
    monkeypatch.setattr(probes, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(probes, "CONNECTION_S", 3600.0)
    silent = [await asyncio.open_connection("127.0.0.1", served.probes.port) for _ in range(60)]
    assert (await served.get("/livez"))[0] == 200
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionResetError):
            assert await silent[0][0].read() == b""
    for _, writer in silent:
        writer.close()


async def test_a_silent_connection_is_cut_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection lives a bounded time, whatever its peer does."""
    monkeypatch.setattr(probes, "CONNECTION_S", 0.0)
    server = probes.Probes("127.0.0.1", 0, Health())
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    await server.close()


async def test_more_connections_than_the_pace_allows_are_served_later(served: Served) -> None:
    """Beyond `CONNECTIONS_PER_S` scrapes wait in the kernel's queue, and get their answer all the same."""
    answers = await asyncio.gather(*(served.get("/metrics") for _ in range(probes.CONNECTIONS_PER_S + 50)))
    assert {status for status, _, _ in answers} == {200}


async def test_a_port_in_use_says_what_to_do() -> None:
    """The error names address, cause and remedy, and is one of configuration."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = probes.Probes("127.0.0.1", port, Health())
        with pytest.raises(Exit, match=rf"127\.0\.0\.1:{port}: .*in use.*worker\.http\.port") as caught:
            await server.start()
        assert caught.value.code == 78
        await server.close()


async def test_build_info_is_one_series_of_value_one() -> None:
    """The build gauge carries the versions as labels."""
    probes.set_build_info()
    (family,) = metrics.BUILD_INFO.collect()
    assert [sample.value for sample in family.samples] == [1]
    assert family.samples[0].labels["version"] == probes.versions()["penstock"]
