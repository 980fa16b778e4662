"""Credentials as their files have them at each connection: aiokafka takes a password and a TLS context once, for ever.

Without this a password that was changed, or a client certificate that was renewed, would need a restart. aiokafka has a
seam for bearer tokens only, so `connect` of its connection is wrapped; the version is pinned, and a test holds it.
"""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.conn import AIOKafkaConnection
from pydantic import SecretStr

from workers.settings.secret_file import reread

MakeContext = Callable[[], ssl.SSLContext]

_connect: Callable[[AIOKafkaConnection], Awaitable[Any]] = AIOKafkaConnection.connect


class Password(str):
    """A password as it was when a client was made; it knows where to look for a newer one."""

    __slots__ = ("secret",)
    secret: SecretStr


@dataclass(slots=True)
class _Tls:
    """The files of a context as they were, and what was made of them when they changed."""

    files: list[Path]
    make: MakeContext
    stamps: list[tuple[int, int, int]]
    newer: ssl.SSLContext | None = None


_tls: WeakKeyDictionary[ssl.SSLContext, _Tls] = WeakKeyDictionary()
"""By the context that a client was made with: it goes with the client."""


def renew() -> None:
    """Let all connections of this process ask for fresh credentials, from now on."""
    AIOKafkaConnection.connect = connect


def password(secret: SecretStr) -> Password:
    """Return what a client is to be given as its password."""
    given = Password(secret.get_secret_value())
    given.secret = secret
    return given


def watched(make: MakeContext, files: list[Path]) -> ssl.SSLContext:
    """Return a context, which connections make again once one of its files has changed.

    Raises:
        OSError: a file cannot be read, or is no certificate or key.
    """
    stamps = _stamps(files)
    context = make()
    _tls[context] = _Tls(files, make, stamps)
    return context


async def connect(connection: AIOKafkaConnection) -> Any:
    """Connect as aiokafka does, with credentials of this moment.

    Raises:
        KafkaError, OSError: as aiokafka; OSError also when the files of a certificate are being replaced. Retryable.
    """
    refresh(connection)
    return await _connect(connection)


def refresh(connection: AIOKafkaConnection) -> None:
    """Give a connection that is not open yet the credentials as their files have them. Reads small local files."""
    given = connection._sasl_plain_password  # noqa: SLF001 - see above
    if isinstance(given, Password):
        connection._sasl_plain_password = reread(given.secret).get_secret_value()  # noqa: SLF001 - see above
    tls = _tls.get(connection._ssl_context) if connection._ssl_context is not None else None  # noqa: SLF001 - see above
    if tls is None:
        return
    if (stamps := _stamps(tls.files)) != tls.stamps:
        tls.newer, tls.stamps = tls.make(), stamps
    if tls.newer is not None:
        connection._ssl_context = tls.newer  # noqa: SLF001 - see above


def _stamps(files: list[Path]) -> list[tuple[int, int, int]]:
    """Return what changes when a file is written or another takes its place (a mounted secret swaps a link)."""
    found = [file.stat() for file in files]
    return [(one.st_ino, one.st_mtime_ns, one.st_size) for one in found]
