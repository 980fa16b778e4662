"""The stage of tests/support with another worker on it: same topics, same model, same processes to kill and restart."""

from pathlib import Path
from typing import Any

from tests.support.deployment import WorkerProcess
from tests.support.kafka import KafkaBroker
from tests.support.stage import TASK, Stage

SESSION_S, HEARTBEAT_S = 6.0, 2.0
"""What tests/support/deployment.py gives Penstock: a session of 6 s, and the heartbeat that follows from it."""


class PeerStage(Stage):
    """A stage whose workers are a peer's program. `command` None: they are Penstock's.

    A program finds what it needs in its environment. Penstock gets `when_unavailable: hold`: it shall wait for the
    model as its peers do, and not send default answers.
    """

    def __init__(
        self,
        folder: Path,
        broker: KafkaBroker,
        *,
        command: list[str | Path] | None,
        env: dict[str, str],
        slots: int,
        static: bool,
        **settings: Any,
    ) -> None:
        super().__init__(
            folder,
            broker,
            static=static,
            model={"max_in_flight": slots},
            task={"when_unavailable": "hold"},
            **settings,
        )
        self._command = command
        self._env = env | {
            "BOOTSTRAP": broker.bootstrap_servers,
            "GROUP": self.group,
            "INPUT": self.topic,
            "OUTPUT": f"{self.topic}.{TASK}.enriched",
            "URL": f"{self.model.url}/v1/chat/completions",
            "SLOTS": str(slots),
            "STATIC": str(int(static)),
            "SESSION_TIMEOUT_MS": str(int(SESSION_S * 1_000)),
            "HEARTBEAT_MS": str(int(HEARTBEAT_S * 1_000)),
        }

    def worker(self, name: str = "a", *, instance: str | None = None) -> WorkerProcess:
        """Start a worker."""
        if self._command is None:
            return super().worker(name, instance=instance)
        worker = WorkerProcess(
            self.config,  # an argument that no peer reads
            self._folder / f"{name}.log",
            env=self._env | {"INSTANCE": instance or name},
            program=tuple(self._command),
        )
        return self._stack.enter_context(worker)
