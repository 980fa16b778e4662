"""Host names to addresses, and never to one that hands out credentials: looked at wherever a connection is made."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from workers.settings.checks.endpoints import is_forbidden_address, literal_address


class ForbiddenAddress(OSError):
    """A name led to a link-local or metadata address. An OSError, so that aiohttp gives it to each who waits for it."""


class CheckedResolver(AbstractResolver):
    """Resolves as `inner` does, and refuses a name as a whole when one of its addresses is forbidden.

    Hosts that are addresses already never come here (aiohttp); `transport.target` looks at those.
    """

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`.

        Raises:
            ForbiddenAddress: one of them is forbidden, or no address at all.
            OSError: the name does not resolve.
        """
        found = await self._inner.resolve(host, port, family)
        if any(_is_forbidden(each["host"]) for each in found):
            raise ForbiddenAddress("a link-local or cloud metadata address")
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def _is_forbidden(spelt: str) -> bool:
    address = literal_address(spelt)
    return address is None or is_forbidden_address(address)
