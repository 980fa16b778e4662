"""Watches how late the event loop is: everything in this process shares it, heartbeats to Kafka included."""

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from types import FrameType

from workers import metrics
from workers.clock import monotonic_s
from workers.log import get_logger

PERIOD_S = 0.1
SAMPLES = 50
"""5 s of them while the loop is on time."""
WARN_S = 1.0
STACK_FRAMES = 12
"""The innermost ones: where the loop stands, and how it got there from the record's task."""

_log = get_logger(__name__)


async def watch_loop_lag(
    clock: Callable[[], float] = monotonic_s, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Sample until cancelled: the gauge holds the longest delay of the last samples; a long one is logged.

    A thread looks on, and logs what the loop is doing while it is blocked: afterwards nobody could tell.
    """
    delays_s: deque[float] = deque(maxlen=SAMPLES)
    onlooker = Onlooker(threading.get_ident(), clock)
    onlooker.start()
    try:
        while True:
            began_s = onlooker.beat()
            await sleep(PERIOD_S)
            delay_s = max(0.0, clock() - began_s - PERIOD_S)
            delays_s.append(delay_s)
            metrics.LOOP_LAG_S.set(max(delays_s))
            if delay_s > WARN_S:
                _log.warning("event loop was blocked", delay_s=round(delay_s, 3))
    finally:
        onlooker.stop()


class Onlooker:
    """A thread that logs the stack of another one, once each time that its beat fails for longer than `WARN_S`.

    What holds the interpreter (a regular expression, one large parse) holds this thread as well; it then gets its turn
    at the very call that did so, as the interpreter passes on to whoever waited when that call returns. A process that
    was frozen shows a loop that only waits.
    """

    def __init__(self, thread_id: int, clock: Callable[[], float]) -> None:
        self._thread_id = thread_id
        self._clock = clock
        self._beat_s = clock()
        self._told_s = -1.0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Look on until `stop`; as a daemon, so that the process's end never waits for it."""
        threading.Thread(target=self._run, name="loop-onlooker", daemon=True).start()

    def stop(self) -> None:
        """End the thread within `PERIOD_S`."""
        self._stopped.set()

    def beat(self) -> float:
        """Note that the loop is alive; return the moment."""
        self._beat_s = self._clock()
        return self._beat_s

    def look(self) -> None:
        """Log where the watched thread stands, if it is blocked and that was not told yet."""
        beat_s = self._beat_s
        blocked_s = self._clock() - beat_s - PERIOD_S
        if blocked_s <= WARN_S or beat_s == self._told_s:
            return
        self._told_s = beat_s
        _log.warning(
            "event loop is blocked",
            for_s=round(blocked_s, 3),
            stack=stack_of(sys._current_frames().get(self._thread_id)),  # noqa: SLF001 - the public way to another thread's frames
        )

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            self.look()


def stack_of(frame: FrameType | None) -> list[str]:
    """Return `file:line function` of the innermost frames, the innermost last. No values: those may be secret."""
    places: list[str] = []
    while frame is not None and len(places) < STACK_FRAMES:
        code = frame.f_code
        places.append(f"{_short(code.co_filename)}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return places[::-1]


def _short(file: str) -> str:
    """Return the last two parts of a path: enough to find it, and nothing of the machine's folders."""
    return "/".join(file.rsplit("/", 2)[-2:])
