"""The stub endpoint as a process of its own: built from stub.c, or where there is no C compiler the Python one."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.peers.building import built, needed, ran

SOURCE = Path(__file__).with_name("stub.c")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running stub."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Its base, as Penstock takes it."""
        return f"http://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        """Return its counts (requests, connections, refused, running, most_running) and latencies (p50_s, p99_s)."""
        counts: dict[str, Any] = json.loads(self._get("/stats"))
        return counts

    def fail(self, mode: str, for_s: float) -> None:
        """Meet new calls with `503`, `reset` or `hang` for so many seconds."""
        needed("cc", "the Python stub cannot fail")
        self._get(f"/fail?mode={mode}&for_s={for_s}")

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
        return text


def stub_program() -> Path | None:
    """Return the compiled stub, None without a C compiler."""
    if shutil.which("cc") is None:
        return None
    program = built("stub", [SOURCE]) / "stub"
    if not program.exists():
        unfinished = program.with_suffix(f".{os.getpid()}")
        ran(["cc", "-O2", "-o", unfinished, SOURCE, "-lm"])
        unfinished.rename(program)  # another bench may be about to start it
    return program


@contextmanager
def endpoint(latency: str, knee: int = 0) -> Iterator[Endpoint]:
    """Run a stub with a latency and a knee as stub.c takes them."""
    program = stub_program()
    if knee:
        needed("cc", "the Python stub has no knee")
    in_python: list[str | Path] = [sys.executable, "-m", "tests.bench.stub", "0", *(latency.split(":")[1:] or ["0"])]
    command = in_python if program is None else [program, latency, str(knee)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Endpoint(int(process.stdout.readline()), process.pid)
        finally:
            process.kill()
