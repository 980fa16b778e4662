"""A resolver that answers as a test says: no name server is asked."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult


class ScriptedResolver(AbstractResolver):
    """Resolves every name to `addresses`, which a test may change, or fails with `error`.

    `port` is where connections go, whatever port the URL names; None leaves the URL's.
    """

    def __init__(self, *addresses: str, port: int | None = None, error: OSError | None = None) -> None:
        self.addresses = addresses
        self.port = port
        self.error = error
        self.asked = 0
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        port = self.port or port
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in self.addresses
        ]

    async def close(self) -> None:
        """Note it."""
        self.closed = True
