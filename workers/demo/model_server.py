"""A simulated model behind OpenAI's HTTP API: it understands nothing, and every answer says so.

`python -m workers.demo.model_server --port 8000` prints its URL as its first line and serves until it is ended.
`POST /_sim {"mode": "503", "for_s": 3}` makes it fail on purpose; `GET /_sim` says what it has seen. Both are answered
only to this machine.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import itertools
import signal
import socket
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop
from aiohttp import web

from workers.clock import monotonic_s, wall_s
from workers.demo.answers import instance, summary, ticket, triage, wrapped
from workers.demo.child import end_after
from workers.demo.latency import SEED, latency

FINGERPRINT = "penstock-simulated-model"
SIMULATED = {"X-Simulated": "true"}
DEFAULT_MODEL = "simulated-small"
DEFAULT_LATENCY = "lognormal:0.15:0.35"
MODES = ("ok", "503", "429", "500", "401", "hang", "reset", "garbage")
HANG_S = 600.0
KEEPALIVE_S = 75.0
MAX_TEXTS = 100_000
MAX_TEXT_CHARS = 512
CHARS_PER_TOKEN = 4
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST

FAULTS: dict[str, tuple[int, str, dict[str, str]]] = {
    "503": (503, "the simulated model is overloaded", {}),
    "429": (429, "the simulated model has no room", {"Retry-After": "1"}),
    "500": (500, "the simulated model failed", {}),
    "401": (401, "the simulated model knows no such key", {}),
}


@dataclass(slots=True)
class Seen:
    """What the server counts.

    `texts`: how often each ticket was asked, for at most 100,000 of them; of a long one the beginning and a checksum.
    """

    requests: int = 0
    answered: int = 0
    refused: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    serving: int = 0
    max_serving: int = 0
    texts: Counter[str] = field(default_factory=Counter)
    texts_left_out: int = 0

    def ask(self, text: str) -> None:
        """Count a user text."""
        known = text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}#{zlib.crc32(text.encode()):08x}"
        if known in self.texts or len(self.texts) < MAX_TEXTS:
            self.texts[known] += 1
        else:
            self.texts_left_out += 1

    def report(self, *, with_texts: bool) -> dict[str, Any]:
        """Return the counts as JSON."""
        names = ("requests", "answered", "refused", "in_flight", "max_in_flight", "serving", "max_serving")
        counts: dict[str, Any] = {name: getattr(self, name) for name in names}
        return counts | ({"texts": dict(self.texts), "texts_left_out": self.texts_left_out} if with_texts else {})


class SimulatedServer:
    """The HTTP handler and its state. `capacity` requests are served at a time, the others wait in line."""

    def __init__(self, *, delay_s: Callable[[], float], capacity: int, wrap_ratio: float) -> None:
        self.seen = Seen()
        self._delay_s = delay_s
        self._slots = asyncio.Semaphore(capacity)
        self._wrap_ratio = wrap_ratio
        self._mode = "ok"
        self._mode_ends_at_s: float | None = None
        self._ids = itertools.count(1)

    @property
    def mode(self) -> str:
        """What happens to completions now: a fault that was set for some seconds ends by itself."""
        if self._mode_ends_at_s is not None and monotonic_s() >= self._mode_ends_at_s:
            self._mode, self._mode_ends_at_s = "ok", None
        return self._mode

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request."""
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                return await self._complete(request)
            case "GET", "/v1/models":
                return _json({"object": "list", "data": [{"id": DEFAULT_MODEL, "object": "model"}]})
            case "GET", "/health":
                return _json({"status": "ok", "simulated": True})
            case (("GET" | "POST"), "/_sim"):
                return await self._control(request)
        return _refusal(404, f"no {request.method} {request.path} here")

    async def _complete(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = self.seen
        seen.requests += 1
        seen.in_flight += 1
        seen.max_in_flight = max(seen.max_in_flight, seen.in_flight)
        try:
            if (mode := self.mode) != "ok":
                seen.refused += 1
                return await _fault(mode, request)
            try:
                asked = Asked.read(await request.read())
            except (ValueError, KeyError, TypeError) as error:
                seen.refused += 1
                return _refusal(400, f"no chat completion request: {error!r}")
            seen.ask(asked.text)
            await self._serve()
            seen.answered += 1
            return _json(completion(asked, next(self._ids), self._wrap_ratio))
        finally:
            seen.in_flight -= 1

    async def _serve(self) -> None:
        """Hold a slot for as long as a model would think."""
        async with self._slots:
            self.seen.serving += 1
            self.seen.max_serving = max(self.seen.max_serving, self.seen.serving)
            try:
                if (delay_s := self._delay_s()) > 0:
                    await asyncio.sleep(delay_s)
            finally:
                self.seen.serving -= 1

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:  # noqa: S104 - an address that is none
            return _refusal(403, "only from this machine")
        if request.method == "GET":
            return _json(self.seen.report(with_texts=request.query.get("counts") == "1") | {"mode": self.mode})
        try:
            wanted = orjson.loads(await request.read())
            mode, for_s = wanted["mode"], float(wanted.get("for_s", 0))
        except (ValueError, KeyError, TypeError) as error:
            return _refusal(400, f'expected {{"mode": ..., "for_s": ...}}: {error!r}')
        if mode not in MODES:
            return _refusal(400, f"mode is none of {', '.join(MODES)}")
        self._mode, self._mode_ends_at_s = mode, monotonic_s() + for_s if for_s else None
        return _json({"mode": mode, "for_s": for_s})


@dataclass(slots=True)
class Asked:
    """What a request asks for. `text` is the ticket in the last user text, or all of that text."""

    model: str
    text: str
    schema: Any
    prompt_chars: int

    @classmethod
    def read(cls, body: bytes) -> "Asked":
        """Read a request body. Raises ValueError, KeyError or TypeError when it is no chat completion request."""
        wanted = orjson.loads(body)
        contents = [_content(one) for one in wanted["messages"]]
        user = [_content(one) for one in wanted["messages"] if one.get("role") == "user"]
        return cls(
            model=str(wanted.get("model", DEFAULT_MODEL)),
            text=ticket(user[-1]) if user else "",
            schema=_schema(wanted),
            prompt_chars=sum(map(len, contents)),
        )


def _content(spoken: dict[str, Any]) -> str:
    content = spoken["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _schema(wanted: dict[str, Any]) -> Any:
    """Return the schema, as OpenAI (`response_format`) or vLLM (`structured_outputs`) take it; None: free text."""
    form = wanted.get("response_format") or {}
    if form.get("type") == "json_schema":
        return form["json_schema"]["schema"]
    return (wanted.get("structured_outputs") or {}).get("json")


def completion(asked: Asked, number: int, wrap_ratio: float) -> dict[str, Any]:
    """Return the body of an answer. Its model and its fingerprint say that it is simulated."""
    if asked.schema is None:
        answer = f"(simulated) {summary(asked.text)}"
    else:
        fitting = orjson.dumps(instance(asked.schema, triage(asked.text))).decode()
        answer = wrapped(fitting, asked.text, wrap_ratio)
    prompt_tokens, answer_tokens = asked.prompt_chars // CHARS_PER_TOKEN, len(answer) // CHARS_PER_TOKEN
    spoken = {"role": "assistant", "content": answer, "refusal": None}
    return {
        "id": f"chatcmpl-simulated-{number}",
        "object": "chat.completion",
        "created": int(wall_s()),
        "model": asked.model if asked.model.startswith("simulated") else f"simulated-{asked.model}",
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "message": spoken, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answer_tokens,
            "total_tokens": prompt_tokens + answer_tokens,
        },
    }


async def _fault(mode: str, request: web.BaseRequest) -> web.StreamResponse:
    if mode in FAULTS:
        status, reason, headers = FAULTS[mode]
        return _refusal(status, reason, headers)
    if mode == "garbage":
        return web.Response(body=b'}{ "choices": not json', content_type="application/json", headers=SIMULATED)
    if mode == "hang":
        await asyncio.sleep(HANG_S)  # the client's leaving cancels us
    _reset(request)
    return _refusal(500, "the connection was reset")  # nobody is there to read it


def _reset(request: web.BaseRequest) -> None:
    if (transport := request.transport) is not None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        transport.abort()


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json", headers=SIMULATED)


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    body = orjson.dumps({"error": {"message": reason, "type": "simulated", "param": None, "code": status}})
    return web.Response(status=status, body=body, content_type="application/json", headers=SIMULATED | (headers or {}))


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, or until standard input ends when that was asked for."""
    handler = SimulatedServer(
        delay_s=latency(options.latency, options.seed), capacity=options.capacity, wrap_ratio=options.wrap_ratio
    )
    server = web.Server(handler.handle, access_log=None, handler_cancellation=True, keepalive_timeout=KEEPALIVE_S)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.until_input_ends:
        loop.add_reader(sys.stdin.fileno(), stop.set)  # nobody writes to it: readable means ended
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port, backlog=4_096)
    await site.start()
    sys.stdout.write(f"http://{options.host}:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m workers.demo.model_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--latency", default=DEFAULT_LATENCY, help="zero, const:S, heavy:S:SLOW_S:RATIO, lognormal:S:SIGMA"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the latencies")
    parser.add_argument("--capacity", type=int, default=64, help="requests served at a time; the others wait")
    parser.add_argument("--wrap-ratio", type=float, default=0.02, help="share of answers in a fence or in prose")
    parser.add_argument("--lifetime-s", type=float, default=0, help="end by itself after this; 0: never")
    parser.add_argument("--until-input-ends", action="store_true", help="end with standard input: for a parent process")
    return parser.parse_args(argv)


def main() -> None:
    """Start the server."""
    options = arguments()
    end_after(options.lifetime_s)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(options))


if __name__ == "__main__":
    main()
