"""A child process that talks in lines over its pipes and cannot outlive its parent: its input ends when we do."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

from workers.clock import monotonic_s
from workers.errors import EX_SOFTWARE, Exit

READY_S = 30.0
STOP_S = 5.0


def end_after(lifetime_s: float) -> None:
    """End this process by SIGALRM when `lifetime_s` has passed: the bound for a child whose pipe was kept open."""
    signal.setitimer(signal.ITIMER_REAL, lifetime_s)


class Child:
    """One module of ours, run as its own process by this interpreter.

    `-P` keeps a folder called `workers` in the current directory from being taken for ours. The child shall end when
    its standard input ends. Its first line says that it is ready.

    Raises:
        Exit: the child ended, or said nothing in time; its code is the child's own where it has one.
    """

    def __init__(self, module: str, arguments: Sequence[str] = (), *, ready_s: float = READY_S) -> None:
        self.name = module
        self._unread = b""
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is for us: we end it in our own order
        )
        try:
            self.ready_line = self._line(ready_s)
        except BaseException:
            self._process.kill()
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The child's process id, for tests that stop or kill it."""
        return self._process.pid

    def ask(self, line: str, *, timeout_s: float = READY_S) -> str:
        """Write one line and return the line that answers it; blocks, some tenths of a millisecond as a rule."""
        try:
            os.write(_pipe(self._process.stdin), line.encode() + b"\n")
        except OSError as exc:
            raise self._ended() from exc
        return self._line(timeout_s)

    def stop(self) -> None:
        """End the child: by closing its input, then by force. Safe to call twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _line(self, timeout_s: float) -> str:
        ends_at_s = monotonic_s() + timeout_s
        pipe = _pipe(self._process.stdout)
        while b"\n" not in self._unread:
            left_s = ends_at_s - monotonic_s()
            if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
                raise Exit(EX_SOFTWARE, f"{self.name} said nothing within {timeout_s:g} s")
            received = os.read(pipe, 65_536)
            if not received:
                raise self._ended()
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def _ended(self) -> Exit:
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            code = EX_SOFTWARE
        return Exit(code if code > 0 else EX_SOFTWARE, f"{self.name} ended by itself (exit {code})")


def _pipe(stream: IO[bytes] | None) -> int:
    """Return the descriptor: lines are read from it directly, since `select` cannot see a file object's buffer."""
    if stream is None or stream.closed:
        raise Exit(EX_SOFTWARE, "the child was stopped already")
    return stream.fileno()
