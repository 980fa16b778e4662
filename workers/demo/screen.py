"""What a person sees while the demo runs: happenings as they come, and the state, alive or as a line each second."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workers.clock import monotonic_s
from workers.demo.metrics_page import Snapshot

QUIET_S = 5.0
"""A line is printed for each new page of the worker's metrics (one a second), and after this time anyway."""

RATE_OVER_S = 2.0
BAR_WIDTH = 24
BREAKER_STYLES = {"closed": "green", "half-open": "yellow", "open": "bold red"}
ANSWERERS = {"model": 7, "rules": 7, "review": 8, "default": 9, "dead letter": 13, "tombstone": 11}
"""Who has answered, or what came instead, and the width of its column."""

HEADINGS = " done  in flight  per s   breaker  " + "".join(f"{who:>{width}}" for who, width in ANSWERERS.items())


class Screen:
    """The terminal: a live block at the bottom on a tty, else a plain line per second."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began_s = monotonic_s()
        self._shown: Snapshot | None = None
        self._next_line_s = 0.0
        self._rate = _Rate()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            # No thread of its own: `show` is called often enough.
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return monotonic_s() - self._began_s

    def say(self, sentence: str, style: str = "") -> None:
        """Print something that happened, with its time."""
        self.console.print(Text.assemble((f"{self.elapsed_s:5.1f} s  ", "dim"), (sentence, style)))

    def show(self, now: Snapshot, *, total: int) -> None:
        """Show the state: records done, in flight, rate, breaker, and who has answered."""
        rate_per_s = self._rate.per_s(self.elapsed_s, now.done)
        if self._live is not None:
            self._live.update(_block(now, total, rate_per_s), refresh=True)
        elif now != self._shown or self.elapsed_s >= self._next_line_s:
            if self._shown is None:
                self.say(HEADINGS, "dim")
            self._shown, self._next_line_s = now, self.elapsed_s + QUIET_S
            self.say(_line(now, rate_per_s))


def _line(now: Snapshot, rate_per_s: float) -> str:
    counts = "".join(f"{now.answered_by[who]:{width}}" for who, width in ANSWERERS.items())
    return f"{now.done:5}{now.in_flight:11}{rate_per_s:7.0f}   {now.breaker:9}{counts}"


def _block(now: Snapshot, total: int, rate_per_s: float) -> Padding:
    top = Table.grid(padding=(0, 2))
    top.add_row(
        ProgressBar(total, now.done, width=BAR_WIDTH, complete_style="cyan", finished_style="cyan"),
        f"{now.done:>3} of {total}",
        f"{now.in_flight:>3} in flight",
        f"{rate_per_s:>3.0f}/s",
        Text.assemble("breaker ", (now.breaker, BREAKER_STYLES[now.breaker])),
    )
    answered = Text("  ").join(Text.assemble((f"{who} ", "dim"), str(now.answered_by[who])) for who in ANSWERERS)
    return Padding(Group(top, answered), (1, 0, 0, 9))


class _Rate:
    """Records per second over the last two seconds."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, int]] = []

    def per_s(self, at_s: float, done: int) -> float:
        self._readings.append((at_s, done))
        while len(self._readings) > 1 and self._readings[1][0] <= at_s - RATE_OVER_S:
            self._readings.pop(0)
        since_s, before = self._readings[0]
        return (done - before) / (at_s - since_s) if at_s > since_s else 0.0
