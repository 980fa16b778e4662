"""CPU per POST of the HTTP clients, through the worker's own seam: `python -m tests.bench.http_clients`.

The endpoint is a process of its own and answers at once; each measurement is a fresh process, all clients once, then
all again. The figure is the client's CPU (user and system), which a busy machine blurs less than it does the clock.
pycurl is measured where it can be imported. One JSON line is printed per client and number of connections.
"""

import argparse
import asyncio
import importlib.util
import itertools
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from typing import Any, Protocol

import orjson
import uvloop

from tests.bench.matrix.endpoint import endpoint
from workers.llm.dialects import dialect_of
from workers.llm.lean import LeanTransport
from workers.llm.transport import Target, Transport, target
from workers.settings.servers import ModelSettings

TEXT = ("Classify the following support ticket into one of billing, bug, question. " * 20)[:880]
CLIENTS = ("lean", "aiohttp", "pycurl")


class Posts(Protocol):
    """What is measured."""

    async def start(self) -> None:
        """Make ready."""

    async def post(self, to: Target, body: bytes, timeout_s: float) -> tuple[int, Any, bytes]:
        """Return status, headers and body."""

    async def close(self) -> None:
        """End."""


def client_of(name: str, settings: ModelSettings) -> Posts:
    """Return a client, not started."""
    if name == "pycurl":
        from tests.bench.curl_client import CurlTransport  # noqa: PLC0415 - pycurl is no dependency

        return CurlTransport(settings)
    return LeanTransport(settings) if name == "lean" else Transport(settings)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measured(name: str, url: str, connections: int, posts: int) -> dict[str, float]:
    """Return CPU per POST, after a tenth of the posts as a warm-up."""
    settings = ModelSettings.model_validate(
        {"model": "bench", "url": url, "max_in_flight": connections, "timeout_s": 60, "connect_timeout_s": 30}
    )
    client, to = client_of(name, settings), target(url, dialect_of(settings).path)
    await client.start()

    async def worker(numbers: "itertools.islice[int]") -> None:
        for number in numbers:
            body = orjson.dumps({"model": "bench", "messages": [{"role": "user", "content": f"{number} {TEXT}"}]})
            status, headers, answer = await client.post(to, body, 60.0)
            if status != 200 or "json" not in headers.get("Content-Type", "") or answer[:1] != b"{":
                raise RuntimeError(f"{name}: {status} {answer[:100]!r}")

    async def all_of(count: int) -> None:
        numbers = itertools.islice(itertools.count(), count)
        await asyncio.gather(*(worker(numbers) for _ in range(connections)))

    await all_of(max(connections, posts // 10))
    began_cpu_s, began_s = _cpu_s(), asyncio.get_running_loop().time()
    await all_of(posts)
    cpu_s, wall_s = _cpu_s() - began_cpu_s, asyncio.get_running_loop().time() - began_s
    await client.close()
    return {"cpu_us": cpu_s / posts * 1e6, "posts_per_s": posts / wall_s}


def _one(name: str, url: str, connections: int, posts: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.http_clients", "--one", name, url, str(connections), str(posts)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=600)
    found: dict[str, float] = orjson.loads(done.stdout)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.http_clients", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--posts", type=int, default=20_000)
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 256])
    return parser.parse_args()


def main() -> None:
    """Measure everything in turn; print the medians."""
    arguments = _arguments()
    if arguments.one:
        name, url, connections, posts = arguments.one
        print(orjson.dumps(uvloop.run(measured(name, url, int(connections), int(posts)))).decode())
        return
    clients = [name for name in CLIENTS if name != "pycurl" or importlib.util.find_spec("pycurl")]
    found: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    with endpoint("zero") as stub:
        for _, connections, name in itertools.product(range(arguments.runs), arguments.connections, clients):
            found[name, connections].append(_one(name, stub.url, connections, arguments.posts))
    for (name, connections), runs in sorted(found.items(), key=lambda cell: (cell[0][1], cell[0][0])):
        cpu_us = [run["cpu_us"] for run in runs]
        line = {
            "bench": "http_clients",
            "client": name,
            "version": version("httptools" if name == "lean" else name),
            "connections": connections,
            "cpu_us_per_post": round(statistics.median(cpu_us), 1),
            "least": round(min(cpu_us), 1),
            "most": round(max(cpu_us), 1),
            "posts_per_s": round(statistics.median(run["posts_per_s"] for run in runs)),
            "runs": len(runs),
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        }
        print(orjson.dumps(line).decode())


if __name__ == "__main__":
    main()
