"""A real model server for tests: llama.cpp's llama-server with a tiny random model, on a free port, ready in 0.3 s.

Installed by `install_model_server.sh` (`make tools`) into .cache/tools.
"""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import pytest

from tests.support.chat_families import CHATML, Family
from tests.support.kafka import free_ports
from tests.support.tiny_gguf import Shape, write_model

PROGRAM = Path(__file__).resolve().parents[2] / ".cache" / "tools" / "llama-server"
INSTALL = "tests/support/install_model_server.sh"
READY_S = 60.0
STOP_S = 15.0
START_TRIES = 4
CONTEXT_TOKENS = 4_096
"""Of each slot."""

NEVER_ENDS = Shape(end_bias=-20.0)
SLOW_TO_LOAD = Shape(unused=400_000, layers=1, hidden=8, feed_forward=8, heads=1)
"""A second of 503 on an idle core, and quick afterwards."""


class ServerFailedError(Exception):
    """The server did not start; the text ends with its log."""


def program() -> Path:
    """Return the server's program; without it skip, and fail in CI."""
    missing = None if PROGRAM.exists() else "missing"
    if missing is None and subprocess.run([PROGRAM, "--version"], capture_output=True, check=False).returncode:
        missing = "there, and does not run here"
    if missing is not None:
        reason = f"NOT CHECKED: llama-server is {missing}; run {INSTALL}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return PROGRAM


class LlamaServer:
    """One server with a model of its own, on 127.0.0.1. Its methods block; `url` is its root.

    `slots` answer at the same time, each with `context_tokens`. With `wait=False` it is entered as soon as it answers
    at all, with 503 while it loads.
    """

    def __init__(
        self,
        folder: Path,
        *,
        family: Family = CHATML,
        shape: Shape | None = None,
        slots: int = 2,
        context_tokens: int = CONTEXT_TOKENS,
        api_key: str | None = None,
        wait: bool = True,
    ) -> None:
        self._program = program()
        folder.mkdir(parents=True, exist_ok=True)
        self.family = family
        self._model = write_model(folder / "tiny.gguf", family, shape)
        self._log = folder / "llama-server.log"
        self._options = ["--ctx-size", str(slots * context_tokens), "--parallel", str(slots)]
        self._environment = os.environ | ({"LLAMA_API_KEY": api_key} if api_key else {})
        self._api_key = api_key
        self._wait = wait
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for _ in range(START_TRIES):
            self._launch()
            if self._answers():
                return self
            self.stop()
        raise ServerFailedError(self.log()[-2_000:])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def log(self) -> str:
        """Return what it has written so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def asked(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON answer of a route of the server's own, such as /tokenize; POST when there is a body."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._api_key}"}
        data = None if body is None else orjson.dumps(body)
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310 - our own child, by http
        with urllib.request.urlopen(request, timeout=READY_S) as answer:  # noqa: S310 - the same
            return orjson.loads(answer.read())

    def busy_slots(self) -> int:
        """Return how many slots are at work."""
        return sum(slot["is_processing"] for slot in self.asked("/slots"))

    def stop(self) -> None:
        """End the server. Safe when it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _launch(self) -> None:
        [self._port] = free_ports(1)
        # Dies with us even when we are killed. Tests start it from their main thread, which lives as long as they do.
        guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        where = ["--host", "127.0.0.1", "--port", str(self._port)]
        model = ["--model", str(self._model), "--alias", "tiny", "--threads", "1", "--no-webui", "--slots"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [*guard, str(self._program), *model, *where, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        """Wait until the process answers, with 200 unless it need not be ready; return whether it does."""
        assert self._process
        ends_at_s = time.monotonic() + READY_S
        while time.monotonic() < ends_at_s and self._process.poll() is None:
            try:
                self.asked("/health")
            except urllib.error.HTTPError as exc:
                with exc:
                    if not self._wait:
                        return True
            except OSError:
                pass
            else:
                return True
            time.sleep(0.01)
        return False
