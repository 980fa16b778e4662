"""The real worker as a process, started by its ordinary entry point, and seen only through its log and its probes."""

import asyncio
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from workers.clock import monotonic_s
from workers.demo.metrics_page import Snapshot, snapshot
from workers.errors import EX_UNAVAILABLE, Exit

STARTED_S = 30.0
POLL_S = 0.05
SCRAPE_S = 2.0
PATIENCE_S = 2.0
"""What a worker gets to leave its group when the demo ends early."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy of the environment has no business between us and a child on loopback."""


def penstock() -> Path:
    """Return the installed command.

    Raises:
        Exit: it is neither what runs now, nor beside this interpreter, nor on the PATH.
    """
    asked_for = Path(sys.argv[0]).absolute()
    beside = Path(sys.executable).with_name("penstock")
    on_path = shutil.which("penstock")
    for found in (asked_for if asked_for.name == "penstock" else beside, beside, on_path and Path(on_path)):
        if found and found.is_file():
            return found
    raise Exit(EX_UNAVAILABLE, "no penstock command is installed beside this Python: pip install the wheel")


class WorkerProcess:
    """`penstock run CONFIG`, its log in a file. It ends with us: by `stop`, by `end`, or with our own death."""

    def __init__(self, config: Path, log: Path) -> None:
        self.log = log
        leash = [sys.executable, "-P", "-m", "workers.demo.leash", str(os.getpid())]
        with log.open("wb") as sink:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own command
                [*leash, str(penstock()), "run", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for us: we end it in our own order
            )
        self._port: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def started(self) -> None:
        """Return when it has joined its group.

        Raises:
            Exit: it ended, or did not start in time.
        """
        ends_at_s = monotonic_s() + STARTED_S
        while (line := next(self.logged("started"), None)) is None:
            self.check_runs()
            if monotonic_s() > ends_at_s:
                raise Exit(1, f"the worker has not started within {STARTED_S:g} s")
            await asyncio.sleep(POLL_S)
        self._port = line["http_port"]

    def check_runs(self) -> None:
        """Raise Exit when it has ended by itself."""
        if (code := self._process.poll()) is not None:
            raise Exit(1, f"the worker ended by itself with exit code {code}: {self._last_words()}")

    async def snapshot(self) -> Snapshot | None:
        """Return what its metrics say now, None when it did not answer in time."""
        return await asyncio.to_thread(self._scraped)

    def _scraped(self) -> Snapshot | None:
        try:
            with _DIRECT.open(f"http://127.0.0.1:{self._port}/metrics", timeout=SCRAPE_S) as answer:
                return snapshot(answer.read().decode())
        except OSError:
            return None

    def logged(self, event: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of its log that tell of `event`; `at_s` is added: when, in seconds since the epoch."""
        for line in self.log.read_bytes().split(b"\n")[:-1]:  # the last one may be half written
            if b'"event":"%s"' % event.encode() in line:
                fields = orjson.loads(line)
                yield fields | {"at_s": datetime.fromisoformat(fields["timestamp"]).timestamp()}

    async def stop(self, timeout_s: float) -> int:
        """Ask it to drain (SIGTERM) and return its exit code.

        Raises:
            Exit: it did not end in time.
        """
        self._process.terminate()
        ends_at_s = monotonic_s() + timeout_s
        while (code := self._process.poll()) is None:
            if monotonic_s() > ends_at_s:
                raise Exit(1, f"the worker did not end within {timeout_s:g} s of SIGTERM")
            await asyncio.sleep(POLL_S)
        return code

    def end(self) -> None:
        """End it, by force when it takes its time. Safe to call at any time."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1][:500] if lines else "its log is empty"
