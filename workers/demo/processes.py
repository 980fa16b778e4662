"""The simulated model as a child process, for the demo and for tests."""

import urllib.request
from types import TracebackType
from typing import Any, Self

import orjson

from workers.demo.child import Child
from workers.demo.model_server import DEFAULT_LATENCY

LIFETIME_S = 3_600.0
CONTROL_S = 10.0


class SimulatedModel:
    """A model server on a free port of 127.0.0.1 that ends with us, or after `lifetime_s`. Its methods block.

    `url` is the base: clients add `/v1/chat/completions`. `latency` and the other settings are those of
    `workers/demo/model_server.py`. A `port` other than 0 lets a server come back where its predecessor was.
    """

    def __init__(
        self,
        *,
        latency: str = DEFAULT_LATENCY,
        capacity: int = 64,
        wrap_ratio: float = 0.02,
        port: int = 0,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        options = {
            "--latency": latency,
            "--capacity": capacity,
            "--wrap-ratio": wrap_ratio,
            "--port": port,
            "--lifetime-s": lifetime_s,
        }
        given = [str(part) for option in options.items() for part in option]
        self._child = Child("workers.demo.model_server", [*given, "--until-input-ends"])
        self.url = self._child.ready_line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._child.pid

    def fail(self, mode: str, for_s: float = 0) -> None:
        """Answer completions by a fault, for some seconds or until `ok`.

        `mode`: 503, 429, 500, 401, hang, reset or garbage (a 200 whose body is no JSON).
        """
        self._control("", orjson.dumps({"mode": mode, "for_s": for_s}))

    def ok(self) -> None:
        """Answer completions again."""
        self.fail("ok")

    def counts(self) -> dict[str, int]:
        """Return requests, answered, refused, in_flight, max_in_flight, serving, max_serving."""
        seen: dict[str, int] = self._control("")
        return seen

    def texts(self) -> dict[str, int]:
        """Return how often each ticket was asked (its strings, one a line; without `<ticket>` tags the user text)."""
        asked: dict[str, int] = self._control("?counts=1")["texts"]
        return asked

    def stop(self) -> None:
        """End the server. Safe to call twice."""
        self._child.stop()

    def _control(self, query: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.url}/_sim{query}", data=body)  # noqa: S310 - our own child, by http
        with _DIRECT.open(request, timeout=CONTROL_S) as answer:
            return orjson.loads(answer.read())


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy of the environment has no business between us and a child on loopback."""
