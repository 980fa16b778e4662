"""The same seam as `workers.llm.transport.Transport`, without aiohttp: one POST, its whole answer in memory."""

import ssl
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

import aiohttp
from aiohttp.abc import AbstractResolver
from pydantic import SecretStr
from yarl import URL

from workers.clock import monotonic_s
from workers.errors import ConnectionLost
from workers.llm import failures
from workers.llm.lean.answer import Answer, Broken, BrokeOff, NotHttp, Surplus, TooLarge
from workers.llm.lean.connection import Connection, Lost
from workers.llm.lean.deadlines import Sweeper
from workers.llm.lean.dialing import Dialer, Names
from workers.llm.lean.idle import Idle
from workers.llm.request_id import HEADER, RequestIds, is_anothers
from workers.llm.resolver import CheckedResolver
from workers.llm.transport import KEEP_ALIVE_S, LAST_ANSWERS, STANDING_HEADERS, Target, tls_of
from workers.settings.servers import ModelSettings
from workers.settings.slots import slots_of


@dataclass(slots=True)
class _Line:
    """What is the same in all requests to a target, and its idle connections."""

    to: Target
    idle: Idle
    head: bytes


class LeanTransport:
    """The connections to all endpoints of one model: what `Transport` promises, and the same errors.

    A connection that the server closed before a byte of the answer is replaced once, when it had answered before.
    """

    def __init__(self, settings: ModelSettings, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver
        self._method = settings.custom.method if settings.custom else "POST"
        self._ids = RequestIds() if settings.request_id else None
        self._key = settings.api_key
        # One slot, one connection; and each endpoint's warm-up call, which takes no slot.
        self._most = slots_of(settings) + len(settings.all_endpoints())
        self._lines: dict[str, _Line] = {}
        self._idle: dict[tuple[str, str | None, int | None], Idle] = {}
        self._busy: set[Connection] = set()
        self._sweeper = Sweeper(self._sweep)
        self._names: Names | None = None
        self._dialer: Dialer | None = None

    async def start(self) -> None:
        """Read the authorities; connects nowhere.

        Raises:
            Exit: 78, `ca_file` cannot be read.
        """
        self._names = Names(CheckedResolver(self._resolver or aiohttp.ThreadedResolver()))
        self._dialer = Dialer(
            self._names,
            self._tls(),
            connect_timeout_s=self._settings.connect_timeout_s,
            body_max_bytes=self._settings.max_response_bytes,
        )

    def authorize(self, key: SecretStr) -> None:
        """Send this key as a bearer token with every request that begins from now on."""
        self._key = key
        self._lines.clear()

    async def close(self) -> None:
        """Close all connections."""
        self._sweeper.stop()
        for idle in self._idle.values():
            idle.close()
        for connection in list(self._busy):
            connection.fail(Lost())
        if self._names is not None:
            await self._names.close()
        self._names = self._dialer = None

    def post(
        self, to: Target, body: bytes, timeout_s: float
    ) -> Coroutine[Any, Any, tuple[int, Mapping[str, str], bytes]]:
        """Return status, headers and body of the answer, whatever the status, within `timeout_s` in all.

        Raises:
            TimedOut, ConnectFailed, ConnectionLost, AnswerTooLarge, MixedUp: all retryable.
            Misconfigured: the host is one that must not be asked.

        Cancellation closes the connection.
        """
        line = self._lines.get(to.label)
        if line is None or line.to is not to:
            line = self._line(to)
        if self._ids is None:
            request_id, head = None, line.head
        else:
            request_id = self._ids.new()
            head = b"%b%b: %b\r\n" % (line.head, _ID_HEADER, request_id.encode())
        return self._exchange(line, b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body), timeout_s, request_id)

    async def get(self, to: Target, path: str, timeout_s: float) -> bytes | None:
        """Return the body of a 200 at another path of the server, None for any other answer. Raises as `post`."""
        there = Target(URL(to.label + path), to.label, to.headers)
        line = _Line(to, self._idle_at(to), self._head("GET", there))
        status, _, body = await self._exchange(line, line.head + b"\r\n", timeout_s)
        return body if status == HTTPStatus.OK else None

    async def _exchange(self, line: _Line, request: bytes, timeout_s: float, request_id: str | None = None) -> Answer:
        if self._dialer is None:
            raise RuntimeError("not started")
        if len(self._busy) >= self._most:
            raise RuntimeError("more calls than slots")
        now_s = monotonic_s()
        ends_at_s = now_s + timeout_s
        connection = line.idle.take(now_s)
        try:
            if connection is not None:
                try:
                    return await self._ask(line, connection, request, ends_at_s, request_id)
                except Lost as lost:
                    # The server closed it while we sent. Asking again is safe: it has no side effect.
                    if not connection.went_stale(lost) or monotonic_s() >= ends_at_s:
                        raise
            connection = await self._dialer.connect(line.to, timeout_s, ends_at_s)
            return await self._ask(line, connection, request, ends_at_s, request_id)
        except TimeoutError as exc:
            raise failures.timed_out(line.to.label, timeout_s) from exc
        except Broken as exc:
            self._translate(exc, line.to.label)

    async def _ask(
        self, line: _Line, connection: Connection, request: bytes, ends_at_s: float, request_id: str | None
    ) -> Answer:
        connection.ends_at_s = ends_at_s
        self._busy.add(connection)
        self._sweeper.by(ends_at_s)
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._busy.discard(connection)
        if request_id is not None and is_anothers(request_id, answer[1]):
            connection.abort()
            raise failures.mixed_up(line.to.label)
        if answer[0] in LAST_ANSWERS:
            connection.abort()
        elif connection.is_open:
            now_s = monotonic_s()
            line.idle.give(connection, now_s)
            self._sweeper.by(now_s + KEEP_ALIVE_S)
        return answer

    def _translate(self, exc: Broken, label: str) -> NoReturn:
        match exc:
            case NotHttp():
                raise failures.not_http(label) from exc
            case TooLarge():
                raise failures.too_large(label, self._settings.max_response_bytes) from exc
            case BrokeOff():
                raise failures.broke_off(label) from exc
            case Surplus():
                raise ConnectionLost(f"{label} sent more than one answer to one request") from exc
            case _:
                raise failures.lost(label, exc.__cause__) from exc

    def _sweep(self, now_s: float) -> float:
        """End the calls whose time is over and close what is idle for too long; return when to look next."""
        next_s = min((idle.expire(now_s) for idle in self._idle.values()), default=float("inf"))
        for connection in self._busy:
            if connection.ends_at_s <= now_s:
                connection.fail(TimeoutError())
            else:
                next_s = min(next_s, connection.ends_at_s)
        return next_s

    def _line(self, to: Target) -> _Line:
        line = self._lines[to.label] = _Line(to, self._idle_at(to), self._head(self._method, to))
        return line

    def _idle_at(self, to: Target) -> Idle:
        return self._idle.setdefault((to.url.scheme, to.url.raw_host, to.url.port), Idle())

    def _head(self, method: str, to: Target) -> bytes:
        headers = {"Host": to.url.host_port_subcomponent or "", **STANDING_HEADERS}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        headers.update(to.headers or {})
        lines = [f"{method} {to.url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if any(not line.isprintable() for line in lines):
            raise ValueError("a header has a line end or another control character in it")
        return "\r\n".join((*lines, "")).encode()

    def _tls(self) -> ssl.SSLContext | None:
        context = tls_of(self._settings)
        if context is True and any(URL(each.url).scheme == "https" for each in self._settings.all_endpoints()):
            return ssl.create_default_context()
        return context if isinstance(context, ssl.SSLContext) else None


_ID_HEADER = HEADER.encode()
