"""A deployment for a test: a configuration file on disk, and installed workers that run it as processes."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import yaml

PENSTOCK = Path(sys.executable).with_name("penstock")
ANSWER_S = 30.0
"""What a probe gets to answer: it does so in milliseconds, but a machine may have no time for it."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "category": {"type": "string", "enum": ["billing", "bug", "account", "how_to", "other"]},
        "urgency": {"type": "string", "enum": ["low", "normal", "high"]},
        "summary": {"type": "string", "maxLength": 200},
    },
    "required": ["category", "urgency", "summary"],
    "additionalProperties": False,
}
DEFAULT = {"category": "other", "urgency": "normal", "summary": "no answer"}
FILES = {
    "system.txt": "Classify the ticket. Answer in JSON.\n",
    "user.j2": "{{ record | tojson }}\n",
    "schema.json": orjson.dumps(SCHEMA).decode(),
}


def configuration(
    folder: Path,
    *,
    bootstrap_servers: str,
    group_id: str,
    url: str,
    tasks: dict[str, dict[str, Any]],
    model: dict[str, Any] | None = None,
    models: dict[str, dict[str, Any]] | None = None,
    kafka: dict[str, Any] | None = None,
    worker: dict[str, Any] | None = None,
    files: dict[str, str] | None = None,
) -> Path:
    """Write a configuration with its prompt and schema; return its path. Tasks need only what differs.

    All tasks use the model `small` at `url`, changed by `model`; `models` adds others, which differ from it. `files`
    are more files beside the configuration, or others of the same name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (FILES | (files or {})).items():
        (folder / name).write_text(text)
    small = {"model": "simulated", "url": url, "max_in_flight": 64, "timeout_s": 5, **(model or {})}
    settings = {
        "kafka": {
            "bootstrap_servers": bootstrap_servers,
            "group_id": group_id,
            "session_timeout_s": 6,
            **(kafka or {}),
        },
        "worker": {"drain_s": 5, "http": {"port": 0}, **(worker or {})},
        "models": {"small": _patient(small)}
        | {name: _patient(small | other) for name, other in (models or {}).items()},
        "tasks": {
            name: {
                "model": "small",
                "prompt": {"system": "system.txt", "user": "user.j2"},
                "answer": {"schema": "schema.json"},
                "deadline_s": 20,
                "ladder": [{"default": DEFAULT}],
                **task,
            }
            for name, task in tasks.items()
        },
    }
    path = folder / "penstock.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _patient(model: dict[str, Any]) -> dict[str, Any]:
    """Let connecting take as long as a call. A busy worker is late itself, and late connections open the breaker."""
    return {"connect_timeout_s": model["timeout_s"], **model}


@dataclass
class WorkerProcess:
    """One installed worker. Its log goes to a file, so that a full pipe never blocks it."""

    config: Path
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    program: tuple[str | Path, ...] = (PENSTOCK,)
    log_begins_at: int = 0
    """Its own first byte in a log that another one has written before."""

    def start(self) -> Self:
        """Start it through its ordinary entry point."""
        with self.log.open("ab") as sink:
            self.log_begins_at = sink.tell()
            self.process = subprocess.Popen(
                [*self.program, "run", self.config], stdout=sink, stderr=subprocess.STDOUT, env=os.environ | self.env
            )
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            print(self.tail(80))  # pytest shows it beside the failure
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process, which must have been started."""
        assert self.process is not None
        return self.process

    def terminate(self, timeout_s: float = 60) -> tuple[int, float]:
        """SIGTERM; return the exit code and the seconds it took."""
        began_s = time.monotonic()
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(timeout_s), time.monotonic() - began_s

    def kill(self) -> None:
        """Kill -9."""
        self.running.kill()
        self.running.wait(10)

    def exit_code(self, timeout_s: float = 120) -> int:
        """Wait until it ends by itself; return its code."""
        return self.running.wait(timeout_s)

    def wait_finished(self, records: int, timeout_s: float = 90) -> None:
        """Wait until it says that it has finished so many records, and that no record is left."""
        wait_for(
            lambda: self.metric(r"penstock_records_total\b") >= records and self.lag() == 0,
            timeout_s,
            lambda: f"{self.metric(r'penstock_records_total')} of {records} finished, lag {self.lag()}",
        )

    def lag(self) -> float | None:
        """Return its lag over all partitions; None before it has looked."""
        series = self.series(r"penstock_lag_records\b")
        return sum(series) if series else None

    def wait_ready(self, timeout_s: float = 120) -> "WorkerProcess":
        """Wait until `/readyz` says 200."""
        wait_for(lambda: self.get("/readyz")[0] == 200, timeout_s, lambda: f"never ready:\n{self.tail()}")
        return self

    def port(self) -> int | None:
        """The port of its probes, from its own part of the log."""
        own = self.log.read_bytes()[self.log_begins_at :]
        found = re.findall(rb'"event":"started".*?"http_port":(\d+)[,}]', own)
        return int(found[-1]) if found else None

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log that tell of this event; the last line of all may be half written, and waits."""
        whole, _, _ = self.log.read_bytes().rpartition(b"\n")
        return [orjson.loads(line) for line in whole.splitlines() if b'"event":"%b"' % event.encode() in line]

    def get(self, path: str) -> tuple[int, str]:
        """Ask its probes; (0, '') when nothing answers."""
        port = self.port()
        if port is None or self.running.poll() is not None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=ANSWER_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, pattern: str) -> float:
        """Return the sum of all series whose line matches the pattern."""
        return sum(self.series(pattern))

    def series(self, pattern: str) -> list[float]:
        """Return the values of all series whose line matches the pattern. They are a second old at most."""
        _, text = self.get("/metrics")
        return [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(pattern, line)]

    def not_ready(self) -> str:
        """Return why it is not ready; '' when it is, or does not answer."""
        code, text = self.get("/readyz")
        return "; ".join(orjson.loads(text)["reasons"]) if code == 503 else ""

    def tail(self, lines: int = 30) -> str:
        """The end of its log, for a failing test."""
        return "\n".join(self.log.read_text().splitlines()[-lines:])


def wait_for(condition: Any, timeout_s: float, otherwise: Any = lambda: "not in time", every_s: float = 0.1) -> None:
    """Wait until the condition holds, or fail with what `otherwise` says."""
    ends_at_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > ends_at_s:
            raise AssertionError(otherwise())
        time.sleep(every_s)
