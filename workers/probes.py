"""Probes and metrics over HTTP: `/livez`, `/readyz`, `/metrics`, `/version`. Nothing here changes any state."""

import asyncio
import contextlib
import platform
import socket
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import orjson
from aiohttp import web
from aiolimiter import AsyncLimiter

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import EX_CONFIG, Exit

MAX_CONNECTIONS = 128
"""Beyond it the oldest connection is cut: whoever reads slowly loses, a new probe is answered."""
CONNECTIONS_PER_S = 50
"""More are left to the kernel's queue: a connection costs the records' own loop about a millisecond."""
CONNECTION_S = 10.0
"""What one connection gets; it carries one request (Prometheus' own scrape timeout is 10 s)."""
REQUEST_BYTES = 16_384
"""More than any probe sends. What goes beyond it is not parsed: an error in 256 KiB costs aiohttp's parser 2 ms."""
RENDERING_S = 1.0
"""How long one rendering of the metrics serves every scraper."""
_CLOSE_S = 1.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DISTRIBUTIONS = ("penstock", "aiokafka", "faust-streaming", "aiohttp")


class Health(Protocol):
    """What the probes ask. Both answer at once, from what is known."""

    def reasons_not_ready(self) -> list[str]:
        """Return why no traffic should count on this replica; empty when it is ready."""

    def stuck(self) -> str | None:
        """Return why only a restart can help, or None. Never because Kafka or a model is away."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the distributions that matter, by name."""
    return {"python": platform.python_version()} | {name: version(name) for name in _DISTRIBUTIONS}


def set_build_info() -> None:
    """Set the gauge that says which build this is."""
    known = versions()
    labels = (known["penstock"], known["python"], known["aiokafka"], known["faust-streaming"])
    metrics.BUILD_INFO.labels(*labels).set(1)


class Probes:
    """The HTTP server. Its loop is the worker's own, so an answer to `/livez` says that the loop runs."""

    def __init__(self, host: str, port: int, health: Health, *, clock: Callable[[], float] = monotonic_s) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._clock = clock
        self._rendered_at_s = float("-inf")
        self._rendering = b""
        self._listening: socket.socket | None = None
        self._protocols: web.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was asked for."""
        if self._listening is None:
            return self._port
        port: int = self._listening.getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen.

        Raises:
            Exit: 78, when the address cannot be had.
        """
        protocols = web.Server(self._answer)
        try:
            listening = await _listen(self._host, self._port)
        except OSError as exc:
            raise Exit(
                EX_CONFIG,
                f"cannot serve probes on {self._host}:{self._port}: {exc.strerror or exc}. "
                "Stop the process that has the port, or set worker.http.port (0 takes a free one) and worker.http.host",
            ) from exc
        self._protocols, self._listening = protocols, listening
        self._tasks = [
            asyncio.create_task(_accept(listening, protocols), name="probes-accept"),
            asyncio.create_task(_cut_old(protocols), name="probes-sweeper"),
        ]

    async def close(self) -> None:
        """Stop listening and end what is open, in bounded time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # nobody accepts on a socket that is closed
        if self._listening is not None and self._protocols is not None:
            self._listening.close()
            self._protocols.pre_shutdown()
            await self._protocols.shutdown(_CLOSE_S)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        routes = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics, "/version": self._version}
        route = routes.get(request.path)
        if route is None:
            response = _json(404, {"error": "not found", "paths": sorted(routes)})
        elif request.method not in ("GET", "HEAD"):
            response = _json(405, {"error": "method not allowed"})
            response.headers["Allow"] = "GET, HEAD"
        elif request.can_read_body:
            response = _json(413, {"error": "no body is read here"})
        else:
            response = route()
        response.headers["Server"] = "penstock"
        response.force_close()
        return response

    def _livez(self) -> web.Response:
        reason = self._health.stuck()
        return _json(200 if reason is None else 503, {"live": reason is None, "reason": reason})

    def _readyz(self) -> web.Response:
        reasons = self._health.reasons_not_ready()
        return _json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    def _metrics(self) -> web.Response:
        now_s = self._clock()
        if now_s - self._rendered_at_s >= RENDERING_S:
            metrics.READY.set(not self._health.reasons_not_ready())
            self._rendering = metrics.render()
            self._rendered_at_s = now_s
        return web.Response(body=self._rendering, headers={"Content-Type": _METRICS_TYPE})

    def _version(self) -> web.Response:
        return _json(200, versions())


class _Connection(web.RequestHandler):
    """One connection, cut when it sends more than `REQUEST_BYTES`."""

    _received_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse it, if that is still a probe's request."""
        self._received_bytes += len(data)
        if self._received_bytes > REQUEST_BYTES:
            _cut(self)
        else:
            super().data_received(data)


def _json(status: int, content: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(content), content_type="application/json")


async def _listen(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    listening = socket.create_server(address[:2], family=family, backlog=CONNECTIONS_PER_S)
    listening.setblocking(False)  # noqa: FBT003 - the socket module's own signature
    return listening


async def _accept(listening: socket.socket, protocols: web.Server) -> None:
    """Take connections at a bounded pace and make room for each, until cancelled."""
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"access_log": None, "lingering_time": 0.0, "tcp_keepalive": False}
    handler = partial(_Connection, protocols, loop=loop, **options)
    pace = AsyncLimiter(CONNECTIONS_PER_S, 1.0)
    while True:
        await pace.acquire()
        with contextlib.suppress(OSError):  # no file is left, or the peer has gone by now: the pace bounds this as well
            connection, _ = await loop.sock_accept(listening)
            if len(protocols.connections) >= MAX_CONNECTIONS:
                _cut(protocols.connections[0])
            await loop.connect_accepted_socket(handler, connection)


async def _cut_old(protocols: web.Server) -> None:
    """End connections that have been open for `CONNECTION_S`, until cancelled."""
    since_s: dict[web.RequestHandler, float] = {}
    while True:
        now_s = monotonic_s()
        since_s = {connection: since_s.get(connection, now_s) for connection in protocols.connections}
        for connection in [one for one, began_s in since_s.items() if now_s - began_s >= CONNECTION_S]:
            _cut(connection)
        await asyncio.sleep(1.0)


def _cut(connection: web.RequestHandler) -> None:
    """End it at once, whatever is still unsent."""
    if connection.transport is not None:  # uvloop's is no asyncio.Transport
        connection.transport.abort()
