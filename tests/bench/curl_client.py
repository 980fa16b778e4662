"""A POST by libcurl on asyncio, as `Transport.post` has it: what the lean transport is measured against.

pycurl is no dependency: install it elsewhere and put that folder on PYTHONPATH. It checks less than both transports do
(no id of another request, no cap on headers); handles and the socket callbacks are kept, which is libcurl at its best.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import pycurl

from workers.llm.request_id import RequestIds
from workers.llm.transport import STANDING_HEADERS, Target
from workers.settings.servers import ModelSettings
from workers.settings.slots import slots_of


class CurlTransport:
    """One multi handle, driven by the event loop: readiness and one timer by callback, no polling."""

    def __init__(self, settings: ModelSettings) -> None:
        self._slots = slots_of(settings)
        self._body_max_bytes = settings.max_response_bytes
        self._ids = RequestIds()
        self._headers = [f"{name}: {value}" for name, value in STANDING_HEADERS.items()] + ["Expect:"]
        self._free: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Make the handles."""
        self._loop = asyncio.get_running_loop()
        self._multi = multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_MAXCONNECTS, self._slots)
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._call_in)
        self._free = [pycurl.Curl() for _ in range(self._slots)]
        for handle in self._free:
            handle.setopt(pycurl.NOSIGNAL, 1)
            handle.setopt(pycurl.FOLLOWLOCATION, 0)

    async def post(self, to: Target, body: bytes, timeout_s: float) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body."""
        handle = self._free.pop()
        headers: dict[str, str] = {}
        parts: list[bytes] = []
        size_bytes = 0

        def header(line: bytes) -> None:
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                headers[name.title()] = value.strip()

        def write(part: bytes) -> int:
            nonlocal size_bytes
            size_bytes += len(part)
            parts.append(part)
            return len(part) if size_bytes <= self._body_max_bytes else -1

        handle.setopt(pycurl.URL, str(to.url))
        handle.setopt(pycurl.HTTPHEADER, [*self._headers, f"X-Request-Id: {self._ids.new()}"])
        handle.setopt(pycurl.POSTFIELDS, body)
        handle.setopt(pycurl.HEADERFUNCTION, header)
        handle.setopt(pycurl.WRITEFUNCTION, write)
        handle.setopt(pycurl.TIMEOUT_MS, int(timeout_s * 1_000))
        handle.done = self._loop.create_future()
        self._multi.add_handle(handle)
        try:
            await handle.done
            return handle.getinfo(pycurl.RESPONSE_CODE), headers, b"".join(parts)
        finally:
            self._multi.remove_handle(handle)
            self._free.append(handle)

    async def close(self) -> None:
        """Close all."""
        for handle in self._free:
            handle.close()
        self._multi.close()

    def _watch(self, what: int, descriptor: int, _multi: object, _socket: object) -> None:
        if what in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            self._loop.add_reader(descriptor, self._act, descriptor, pycurl.CSELECT_IN)
        else:
            self._loop.remove_reader(descriptor)
        if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            self._loop.add_writer(descriptor, self._act, descriptor, pycurl.CSELECT_OUT)
        else:
            self._loop.remove_writer(descriptor)

    def _call_in(self, timeout_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if timeout_ms >= 0:
            self._timer = self._loop.call_later(timeout_ms / 1_000, self._act, pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, descriptor: int, flags: int) -> None:
        self._multi.socket_action(descriptor, flags)
        while True:
            left, ended, failed = self._multi.info_read()
            for handle in ended:
                if not handle.done.done():
                    handle.done.set_result(None)
            for handle, code, why in failed:
                if not handle.done.done():
                    handle.done.set_exception(ConnectionError(code, why))
            if not left:
                return
