"""New connections: the host's name to addresses, each tried in turn, TLS included."""

import asyncio
import socket
import ssl
from collections import deque

from aiohttp.abc import AbstractResolver

from workers.clock import monotonic_s
from workers.llm import failures, transport
from workers.llm.lean.connection import Connection
from workers.llm.resolver import ForbiddenAddress
from workers.llm.transport import Target
from workers.settings.checks.endpoints import literal_address

Address = tuple[str, int]


class Names:
    """Addresses of host names, kept for `DNS_TTL_S`; who asks for the same name meanwhile waits for the same answer."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver
        self._ttl_s = transport.DNS_TTL_S
        self._known: dict[Address, tuple[float, deque[Address]]] = {}
        self._asked: dict[Address, asyncio.Task[deque[Address]]] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Return them, another one first each time.

        Raises:
            ForbiddenAddress, OSError: as the resolver does; not kept.
        """
        if literal_address(host) is not None:
            return [(host, port)]  # `transport.target` has looked at it
        until_s, found = self._known.get((host, port), (0.0, deque[Address]()))
        if until_s <= monotonic_s():
            found = await asyncio.shield(self._asking(host, port))
        turn = list(found)
        found.rotate(-1)
        return turn

    def _asking(self, host: str, port: int) -> "asyncio.Task[deque[Address]]":
        task = self._asked.get((host, port))
        if task is None:
            task = self._asked[host, port] = asyncio.create_task(self._resolve(host, port))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # all who waited may be gone
        return task

    async def _resolve(self, host: str, port: int) -> deque[Address]:
        try:
            # Any family: a server that listens on ::1 alone is found by its name, as with aiohttp.
            answers = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
            found = deque((each["host"], each["port"]) for each in answers)
            self._known[host, port] = monotonic_s() + self._ttl_s, found
            return found
        finally:
            del self._asked[host, port]

    async def close(self) -> None:
        """Ask no more."""
        running = list(self._asked.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Dialer:
    """Opens connections; `tls` is for https."""

    def __init__(
        self, names: Names, tls: ssl.SSLContext | None, *, connect_timeout_s: float, body_max_bytes: int
    ) -> None:
        self._names = names
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._body_max_bytes = body_max_bytes

    async def connect(self, to: Target, timeout_s: float, ends_at_s: float) -> Connection:
        """Return a new connection; `timeout_s` is the whole call's, which ends at `ends_at_s`.

        Raises:
            ConnectFailed, TimedOut: retryable.
            Misconfigured: the name leads to a forbidden address.
        """
        try:
            async with asyncio.timeout(max(0.0, ends_at_s - monotonic_s())):
                return await self._first(to, await self._addresses(to))
        except TimeoutError as exc:
            raise failures.timed_out(to.label, timeout_s) from exc

    async def _addresses(self, to: Target) -> list[Address]:
        try:
            found = await self._names.addresses(to.url.raw_host or "", to.url.port or 0)
        except ForbiddenAddress as exc:
            raise failures.forbidden(to.label) from exc
        except OSError as exc:
            raise failures.unresolved(to.label) from exc
        if not found:
            raise failures.unresolved(to.label)
        return found

    async def _first(self, to: Target, addresses: list[Address]) -> Connection:
        """Return a connection to the first address that takes one: each may use its share of the time that is left."""
        ends_at_s = monotonic_s() + self._connect_timeout_s
        failure: OSError = TimeoutError()
        for nth, address in enumerate(addresses):
            share_s = max(0.0, ends_at_s - monotonic_s()) / (len(addresses) - nth)
            try:
                async with asyncio.timeout(share_s):
                    return await self._open(to, address)
            except OSError as exc:
                failure = exc
        if isinstance(failure, TimeoutError):
            raise failures.no_connection(to.label, self._connect_timeout_s) from failure
        raise failures.not_connected(to.label, failure) from failure

    async def _open(self, to: Target, address: Address) -> Connection:
        tls = self._tls if to.url.scheme == "https" else None
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._body_max_bytes),
            *address,
            ssl=tls,
            server_hostname=(to.url.raw_host or "").rstrip(".") if tls else None,
        )
        return connection
