"""`penstock run` that ends itself, as a kill -9 would, at one exact point between two awaits of send, ack and commit.

The seam that a point names is wrapped, and the process dies there at the n-th time; everything else is the ordinary
worker. `CrashingWorkers` is the test's side. The other side is a process that has imported everything and forks a
worker for each life, which saves it the start of a Python. It needs -P: this folder has a topics.py too.
"""

import functools
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.producer.sender import SendProduceReqHandler

import workers.cli.run  # what a fork shall not have to import
from workers.cli import main
from workers.stream import broken_writes, lane
from workers.stream.accumulator import Accumulator
from workers.stream.assignment import Assignment
from workers.stream.commits import Commits
from workers.stream.intake import Intake
from workers.stream.lane import Lane
from workers.stream.offsets import Offsets
from workers.stream.outgoing import Outgoings
from workers.stream.queue import Queue
from workers.stream.window import Delivery, Window

DIED = 137
"""What a shell says of a process that kill -9 ended."""


@dataclass(frozen=True, slots=True)
class Point:
    """Before or after one function of the worker or its client; `when` looks at the arguments, given as to it."""

    why: str
    owner: Any
    name: str
    moment: str
    when: Callable[..., bool] = lambda *_, **__: True


def _to(kind: str) -> Callable[..., bool]:
    """Look for a record that is produced to this kind of output."""
    return lambda _, outgoing: outgoing.topic.endswith(f".{kind}")


def _request(kind: str) -> Callable[..., bool]:
    """Look for a request of this kind on any connection."""
    return lambda _, request, *__: type(request).__name__.startswith(kind)


def _working(assignment: Assignment, *_: Any) -> bool:
    return not assignment.stopping


def _stopping(assignment: Assignment, *_: Any) -> bool:
    return assignment.stopping


def _idempotent(*_: Any, idempotent: bool = True) -> bool:
    """Not the producer that sends records one by one."""
    return idempotent


POINTS = {
    # One record on its way.
    "entered": Point("in ledger and window, not on the channel", Intake, "_entered", "after"),
    "taken": Point("taken from the channel, no task runs it", Lane, "start", "before"),
    "decided": Point("its outcome is decided, nothing is produced", lane, "decide", "after"),
    "gathered": Point("routed, it waits for its batch", Accumulator, "add", "after"),
    "send": Point("its batch is made, not handed to the producer", AIOKafkaProducer, "send_batch", "before"),
    "enqueued": Point("the producer has its batch, the answer not awaited", AIOKafkaProducer, "send_batch", "after"),
    "produce_sent": Point(
        "the request is on the wire; it may arrive", broken_writes, "_send", "after", _request("Prod")
    ),
    "produced": Point("the broker has it, the answer is not read", SendProduceReqHandler, "handle_response", "before"),
    "confirmed": Point("its batch is confirmed, it is not told", Queue, "settle", "before"),
    "told": Point("its future is resolved, who waits has not run", Queue, "settle", "after"),
    "sent": Point("confirmed, not acked", Delivery, "ack", "before"),
    "acked": Point("acked, still in the window", Delivery, "ack", "after"),
    "left": Point("out of the window, its successor not begun", Window, "leave", "after"),
    # One record, several outputs.
    "copied": Point(
        "the review copy is confirmed, the fallback is not sent", Outgoings, "send", "after", _to("review")
    ),
    "fell_back": Point(
        "copy and fallback are confirmed, nothing is acked", Outgoings, "send", "after", _to("fallback")
    ),
    "half_erased": Point(
        "one of a tombstone's two topics has it",
        Outgoings,
        "send",
        "after",
        lambda _, outgoing: outgoing.value is None and outgoing.topic.endswith(".enriched"),
    ),
    "buried": Point("the dead letter is confirmed, nothing is acked", Outgoings, "send", "after", _to("dlq")),
    # Commits.
    "commit": Point("positions and bitmaps are fixed, nothing is sent", AIOKafkaConsumer, "commit", "before"),
    "commit_sent": Point(
        "the request is on the wire; it may arrive", broken_writes, "_send", "after", _request("OffsetCommit")
    ),
    "committed": Point("the group has them, the worker has not noted it", AIOKafkaConsumer, "commit", "after"),
    "commit_noted": Point("the commit is noted, the next one not begun", Commits, "commit", "after"),
    # A producer that a refusal has spent.
    "spent": Point("sends wait for a successor that is not there", Outgoings, "_replace", "after"),
    "reopening": Point("the spent one is closed, no other open", Outgoings, "_opened", "before", _idempotent),
    "reopened": Point("the next one is open, nothing is sent again", Outgoings, "_opened", "after", _idempotent),
    "alone": Point("a refused record is not sent alone yet", Outgoings, "_batch_of_one", "before"),
    "alone_enqueued": Point("it is on its way alone", Outgoings, "_batch_of_one", "after"),
    "alone_sent": Point("it is confirmed alone, not acked", Outgoings, "_send_alone", "after"),
    # A rebalance.
    "revoking": Point("partitions leave, everything still runs", Assignment, "on_partitions_revoked", "before"),
    "settled": Point("what was busy has ended, it is not committed", Assignment, "settle", "after", _working),
    "revoke_committed": Point("it is committed, the ledgers are open", Assignment, "_last_commit", "after", _working),
    "revoked": Point("the partitions are let go, the callback returns", Assignment, "on_partitions_revoked", "after"),
    "assigned": Point("partitions came, nothing is read about them", Assignment, "on_partitions_assigned", "before"),
    "loaded": Point("what was committed is read, the ledgers do not stand", Offsets, "ledgers_for", "after"),
    "begun": Point("the ledgers stand, nothing is fetched", Assignment, "_load", "after"),
    # The end.
    "terminated": Point("SIGTERM came, records are still fetched", Assignment, "stop", "before"),
    "drained": Point("what was busy has ended, it is not committed", Assignment, "settle", "after", _stopping),
    "last_committed": Point("the last commit is done, nothing is closed", Assignment, "last_commit", "after"),
    "producer_closed": Point("the producers are closed, the group is not left", Outgoings, "close", "after"),
    "left_group": Point("the group is left, the process is not over", Assignment, "leave", "after"),
}
"""Where it dies: what has happened there, and what has not."""


def arm(point: Point, after: int) -> None:
    """Wrap the point's function, so that the process dies there at the `after`-th time."""
    inner = getattr(point.owner, point.name)
    left = after

    def reached(at: str, *args: Any, **kwargs: Any) -> None:
        nonlocal left
        if at == point.moment and point.when(*args, **kwargs):
            left -= 1
            if not left:
                os._exit(DIED)

    @functools.wraps(inner)
    async def waiting(*args: Any, **kwargs: Any) -> Any:
        reached("before", *args, **kwargs)
        result = await inner(*args, **kwargs)
        reached("after", *args, **kwargs)
        return result

    @functools.wraps(inner)
    def at_once(*args: Any, **kwargs: Any) -> Any:
        reached("before", *args, **kwargs)
        result = inner(*args, **kwargs)
        reached("after", *args, **kwargs)
        return result

    setattr(point.owner, point.name, waiting if inspect.iscoroutinefunction(inner) else at_once)


class CrashingWorkers:
    """Starts workers that die at a point, one at a time."""

    def __init__(self) -> None:
        self._forker = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._life: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.signal(signal.SIGKILL)
        self._forker.communicate()

    def begin(self, config: Path, log: Path, point: str, after: int) -> None:
        """Start a worker that dies at the point."""
        assert self._forker.stdin
        self._forker.stdin.write(f"{config}\t{log}\t{point}\t{after}\n")
        self._forker.stdin.flush()
        self._life = int(self._said())

    def signal(self, number: signal.Signals) -> None:
        """Send the worker a signal, if it lives."""
        if self._life is not None:
            os.kill(self._life, number)

    def exit_code(self, timeout_s: float) -> int:
        """Wait until it ends; one that does not is killed, which is no code of a worker's own: -9."""
        late = threading.Timer(timeout_s, self.signal, [signal.SIGKILL])
        late.start()
        try:
            return int(self._said())
        finally:
            late.cancel()
            self._life = None

    def _said(self) -> str:
        assert self._forker.stdout
        return self._forker.stdout.readline()


def _serve() -> None:
    """Fork a worker for each line; answer with its process id, and with its exit code when it has ended."""
    for line in sys.stdin:
        config, log, point, after = line.rstrip("\n").split("\t")
        life = os.fork()
        if not life:
            _become(config, log)
            arm(POINTS[point], int(after))
            main()
        print(life, flush=True)
        _, status = os.waitpid(life, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(config: str, log: str) -> None:
    with Path("/dev/null").open() as nothing, Path(log).open("ab") as sink:
        os.dup2(nothing.fileno(), 0)
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    sys.argv = ["penstock", "run", config]


if __name__ == "__main__":
    assert workers.cli.run
    assert threading.active_count() == 1, "a fork has none of these threads"
    _serve()
