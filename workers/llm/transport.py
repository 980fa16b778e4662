"""HTTP by aiohttp: one POST, its whole answer in memory, every failure translated. Nothing here knows what is asked."""

import errno
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from pydantic import SecretStr
from yarl import URL

from workers.clock import monotonic_s
from workers.errors import EX_CONFIG, Exit
from workers.llm import failures
from workers.llm.request_id import HEADER, RequestIds, is_anothers
from workers.llm.resolver import CheckedResolver, ForbiddenAddress
from workers.settings.checks.endpoints import is_forbidden_address, literal_address
from workers.settings.servers import ModelSettings
from workers.settings.slots import slots_of

KEEP_ALIVE_S = 4.0
"""Idle connections are closed before the server does it: llama.cpp and uvicorn close theirs after 5 s."""

LAST_ANSWERS = range(400, 600)
"""Statuses behind which a connection is not asked again, whatever its server says.

vLLM 0.22 (uvicorn) closes it behind a 400 without `Connection: close`; the next request would run into that end, which
looks like a server that broke down. It costs a handshake for each refusal; behind a 429 or 503 a pause comes anyway.
"""

DNS_TTL_S = 30
"""A service that moved is found again after this."""

STANDING_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "penstock",
}
"""In every request."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post: `label` is the root URL as it may be shown, `headers` what only this endpoint gets."""

    url: URL
    label: str
    headers: Mapping[str, str] | None


def target(url: str, path: str) -> Target:
    """Return the target for a server's root URL, given with or without a trailing slash or /v1.

    User and password in the URL become an Authorization header of their own and never show up anywhere else.
    """
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("an endpoint's url starts with http:// or https:// and names a host")
    address = literal_address(parsed.raw_host or "")
    if address is not None and is_forbidden_address(address):
        raise ValueError("a link-local or cloud metadata address is no endpoint")
    bare = parsed.with_user(None).with_query(None).with_fragment(None)
    root = str(bare).rstrip("/").removesuffix("/v1").rstrip("/")
    headers = None
    if parsed.user is not None:
        headers = {"Authorization": aiohttp.encode_basic_auth(parsed.user, parsed.password or "")}
    return Target(URL(root + path), root, headers)


class Transport:
    """The connections to all endpoints of one model.

    Redirects are not followed (a 307 would post the record to another host), proxies and .netrc of the environment are
    ignored, cookies dropped, certificates always checked. Bodies are asked for uncompressed, never decompressed (204 KB
    of gzip became 209 MB) and read up to `max_response_bytes`. What a host name leads to is checked at each connection;
    `resolver` stands for the system's in tests.
    """

    def __init__(self, settings: ModelSettings, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver
        self._method = settings.custom.method if settings.custom else "POST"
        self._whole = self._timeout(settings.timeout_s)
        self._ids = RequestIds() if settings.request_id else None
        self._pool: aiohttp.ClientSession | None = None
        self._single: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the pools; connects nowhere.

        Raises:
            Exit: 78, `ca_file` cannot be read.
        """
        context = tls_of(self._settings)
        resolver = CheckedResolver(self._resolver or aiohttp.ThreadedResolver())
        slots = slots_of(self._settings)
        self._pool = self._session(
            aiohttp.TCPConnector(
                limit=slots,
                ssl=context,
                resolver=resolver,
                ttl_dns_cache=DNS_TTL_S,
                keepalive_timeout=KEEP_ALIVE_S,
                force_close=False,
            )
        )
        # For the one retry that must not meet another stale connection of the pool.
        self._single = self._session(
            aiohttp.TCPConnector(limit=slots, ssl=context, resolver=resolver, ttl_dns_cache=DNS_TTL_S, force_close=True)
        )
        if self._settings.api_key is not None:
            self.authorize(self._settings.api_key)

    def authorize(self, key: SecretStr) -> None:
        """Send this key as a bearer token with every request that begins from now on."""
        for session in (self._pool, self._single):
            if session is not None:
                session.headers["Authorization"] = f"Bearer {key.get_secret_value()}"

    async def close(self) -> None:
        """Close all connections."""
        for session in (self._pool, self._single):
            if session is not None:
                await session.close()
        self._pool = self._single = None

    async def post(self, to: Target, body: bytes, timeout_s: float) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of the answer, whatever the status, within `timeout_s` in all.

        Raises:
            TimedOut, ConnectFailed, ConnectionLost, AnswerTooLarge, MixedUp: all retryable.
            Misconfigured: the host is one that must not be asked.

        Cancellation closes the connection.
        """
        timeout = self._whole if timeout_s == self._settings.timeout_s else self._timeout(timeout_s)
        headers, request_id = to.headers, None
        if self._ids is not None:
            request_id = self._ids.new()
            headers = {HEADER: request_id} if headers is None else {**headers, HEADER: request_id}
        try:
            answer = await self._send(to, body, timeout, headers)
            try:
                if request_id is not None and is_anothers(request_id, answer.headers):
                    raise failures.mixed_up(to.label)
                return answer.status, answer.headers, await self._read(answer, to)
            finally:
                answer.release()  # closes the connection unless the body was read to its end
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            self._translate(exc, to, timeout)

    async def get(self, to: Target, path: str, timeout_s: float) -> bytes | None:
        """Return the body of a 200 at another path of the server, None for any other answer. Raises as `post`."""
        if self._pool is None:
            raise RuntimeError("not started")
        limits = self._timeout(timeout_s)
        try:
            async with self._pool.get(
                URL(to.label + path), headers=to.headers, timeout=limits, allow_redirects=False
            ) as answer:
                return await self._read(answer, to) if answer.status == HTTPStatus.OK else None
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            self._translate(exc, to, limits)

    async def _send(
        self, to: Target, body: bytes, limits: aiohttp.ClientTimeout, headers: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        if self._pool is None or self._single is None:
            raise RuntimeError("not started")
        began_s = monotonic_s()
        try:
            return await self._pool.request(
                self._method, to.url, data=body, headers=headers, timeout=limits, allow_redirects=False
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as exc:
            # A keep-alive connection that the server closed while we sent. Asking again is safe: it has no side effect.
            left_s = (limits.total or 0.0) - (monotonic_s() - began_s)
            if not _went_stale(exc) or left_s <= 0:
                raise
        return await self._single.request(
            self._method,
            to.url,
            data=body,
            headers=headers,
            timeout=self._timeout(left_s),
            allow_redirects=False,
        )

    async def _read(self, answer: aiohttp.ClientResponse, to: Target) -> bytes:
        most = self._settings.max_response_bytes
        chunks: list[bytes] = []
        size = 0
        while chunk := await answer.content.readany():
            size += len(chunk)
            if size > most:
                answer.close()
                raise failures.too_large(to.label, most)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _translate(self, exc: Exception, to: Target, timeout: aiohttp.ClientTimeout) -> NoReturn:
        """Raise our error for a foreign one. Its own text is not quoted: it may hold the URL with what is in it."""
        match exc:
            case aiohttp.ConnectionTimeoutError():
                raise failures.no_connection(to.label, self._settings.connect_timeout_s) from exc
            case TimeoutError():
                raise failures.timed_out(to.label, timeout.total or 0.0) from exc
            case aiohttp.ClientConnectorDNSError(os_error=ForbiddenAddress()):
                raise failures.forbidden(to.label) from exc
            case aiohttp.ClientConnectorDNSError():
                raise failures.unresolved(to.label) from exc
            case aiohttp.ClientConnectorCertificateError(certificate_error=why):
                raise failures.not_connected(to.label, why) from exc
            case aiohttp.ClientConnectorError(os_error=why):
                raise failures.not_connected(to.label, why) from exc
            case aiohttp.ClientResponseError():
                # aiohttp's own invention: "status 400" for an answer that is no HTTP. The model never said 400.
                raise failures.not_http(to.label) from exc
            case aiohttp.ClientPayloadError():
                raise failures.broke_off(to.label) from exc
            case aiohttp.ServerDisconnectedError():
                raise failures.lost(to.label) from exc
            case _:
                raise failures.lost(to.label, exc) from exc

    def _timeout(self, total_s: float) -> aiohttp.ClientTimeout:
        # `total` always: a slow drip resets sock_read with every byte.
        return aiohttp.ClientTimeout(total=total_s, sock_connect=self._settings.connect_timeout_s)

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            response_class=_Answer,
            headers=STANDING_HEADERS,
            timeout=self._whole,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )


class _Answer(aiohttp.ClientResponse):
    """Its connection is not used again if it is one of `LAST_ANSWERS`."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read the head; a short body may have come with it, and the connection is in the pool again then."""
        protocol = connection.protocol
        await super().start(connection)
        if self.status in LAST_ANSWERS and protocol is not None:
            protocol.force_close()
            if self.connection is None:
                protocol.close()
        return self


def tls_of(settings: ModelSettings) -> ssl.SSLContext | bool:
    """Return what checks certificates: the system's authorities (True), or those of `ca_file` alone.

    Raises:
        Exit: 78, `ca_file` cannot be read.
    """
    path = settings.ca_file
    if path is None:
        return True
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as exc:
        raise Exit(EX_CONFIG, f"ca_file {path}: {failures.why(exc)}") from exc


def _went_stale(exc: Exception) -> bool:
    """Whether a connection of the pool was closed by the server before any byte of an answer (E3)."""
    if isinstance(exc, aiohttp.ServerDisconnectedError | aiohttp.ClientConnectionResetError):
        return True
    return isinstance(exc, aiohttp.ClientOSError) and exc.errno == errno.EPIPE
