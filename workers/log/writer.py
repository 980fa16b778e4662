"""A thread that writes lines to a file descriptor, so that a blocked pipe blocks it and never the event loop."""

import os
import queue
import threading
import time
from collections.abc import Callable

QUEUE_LINES = 4_096
"""Lines that wait for a slow reader; beyond it lines are dropped and counted."""
_BATCH_BYTES = 65_536
_RETRY_S = 0.05

Entry = bytes | threading.Event
"""A line, or a mark: set once everything before it has been written."""


class Writer:
    """Writes whole lines, in order. `put` never waits."""

    def __init__(self, descriptor: int, on_drop: Callable[[int], None], queue_lines: int = QUEUE_LINES) -> None:
        self._descriptor = descriptor
        self._on_drop = on_drop
        self._queue: queue.Queue[Entry] = queue.Queue(queue_lines)
        self._closing = False
        # A daemon, and os.write instead of a buffered stream: a blocked pipe must not hold up the process's end, and
        # a thread that holds a buffer's lock at that moment is a fatal error of the interpreter.
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queue a line (without its newline), or drop it when the queue is full."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._on_drop(1)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued so far has been written; False when that took longer than `timeout_s`."""
        ends_at_s = time.monotonic() + timeout_s
        mark = threading.Event()
        try:
            self._queue.put(mark, timeout=timeout_s)
        except queue.Full:
            return False
        return mark.wait(max(0.0, ends_at_s - time.monotonic()))

    def close(self, timeout_s: float) -> None:
        """Flush and end the thread; a thread whose descriptor stays blocked is left behind."""
        self._closing = True
        self.flush(timeout_s)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closing or not self._queue.empty():
            lines, mark = self._take()
            if lines:
                self._write(lines)
            if mark is not None:
                mark.set()

    def _take(self) -> tuple[list[bytes], threading.Event | None]:
        """Wait for an entry, then take what is there, up to a batch or a mark."""
        lines: list[bytes] = []
        size_bytes = 0
        entry = self._queue.get()
        while isinstance(entry, bytes):
            lines.append(entry)
            size_bytes += len(entry)
            if size_bytes >= _BATCH_BYTES or self._queue.empty():
                return lines, None
            entry = self._queue.get()
        return lines, entry

    def _write(self, lines: list[bytes]) -> None:
        rest = memoryview(b"\n".join(lines) + b"\n")
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                time.sleep(_RETRY_S)  # someone made the descriptor non-blocking; this thread may wait
            except OSError:
                self._on_drop(len(lines))  # the reader is gone; there is nowhere left to say so
                return
