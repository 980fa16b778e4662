"""`max_in_flight: auto` on simulated servers, with the code that decides in a worker: goodput, P99, fairness.

    python -m tests.bench.goodput_sim [--workers 1 2 4 8] [--server NAME ...] [--minutes 10] [--seed 1] [--apart 0]

Each row is held against the best fixed limit of the same server, found by trying them all. Goodput, P99 and fairness
(Jain's index) are those of the second half; `--apart` lets the workers' clocks differ by up to so many seconds. Nothing
here takes real time.
"""

import argparse
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from workers.errors import Busy, PenstockError, TimedOut
from workers.llm.auto_limit import AutoLimit
from workers.llm.breaker import Breaker
from workers.llm.endpoint import Endpoint, Grant
from workers.settings.servers import Breaker as BreakerSettings

MOST = 1_024
GAP_S = 0.002
"""From an answer to the next call of that slot: network and client."""


@dataclass(slots=True, eq=False)
class Call:
    """One call on its way."""

    worker: int
    grant: Grant
    began_s: float
    work: float = 1.0
    error: PenstockError | None = None


class Server:
    """A model server: calls come in, and come out later. `next_s` is when something happens by itself."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def enter(self, call: Call, now_s: float) -> None:
        """Take a call in."""
        raise NotImplementedError

    def next_s(self) -> float:
        """Return when something happens by itself."""
        raise NotImplementedError

    def leave(self, now_s: float) -> list[Call]:
        """Return the calls that end now."""
        raise NotImplementedError


class Stub(Server):
    """tests/bench/matrix/stub.c with a knee: what a call takes is settled when it comes in."""

    def __init__(self, rng: random.Random, alone_s: float = 0.3, knee: int = 128, sigma: float = 0.0) -> None:
        super().__init__(rng)
        self.alone_s, self.knee, self.sigma = alone_s, knee, sigma
        self.due: list[tuple[float, int, Call]] = []
        self.entered = 0

    def enter(self, call: Call, now_s: float) -> None:
        """Take a call in."""
        self.entered += 1
        load = (len(self.due) + 1) / self.knee
        lasts_s = self.alone_s * ((1 + load) if load <= 1 else 2 * load * (1 + 0.1 * math.log2(load)))
        lasts_s *= varied(self.rng, self.sigma)
        heapq.heappush(self.due, (now_s + lasts_s, self.entered, call))

    def next_s(self) -> float:
        """Return when something happens by itself."""
        return self.due[0][0] if self.due else math.inf

    def leave(self, _now_s: float) -> list[Call]:
        """Return the calls that end now."""
        return [heapq.heappop(self.due)[2]]


class Shared(Server):
    """Continuous batching: all calls go on together, each at a speed that depends on how many there are.

    `latency_s` gives what a call of mean length takes with so many at once.
    """

    def __init__(self, rng: random.Random, latency_s: Callable[[int], float], sigma: float = 0.3) -> None:
        super().__init__(rng)
        self.latency_s, self.sigma = latency_s, sigma
        self.done = 0.0
        self.at_s = 0.0
        self.due: list[tuple[float, int, Call]] = []
        self.entered = 0

    def enter(self, call: Call, now_s: float) -> None:
        """Take a call in."""
        self._go_on(now_s)
        self.entered += 1
        heapq.heappush(self.due, (self.done + varied(self.rng, self.sigma), self.entered, call))

    def _go_on(self, now_s: float) -> None:
        if self.due:
            self.done += (now_s - self.at_s) / self.latency_s(len(self.due))
        self.at_s = now_s

    def next_s(self) -> float:
        """Return when something happens by itself."""
        if not self.due:
            return math.inf
        return self.at_s + max(0.0, self.due[0][0] - self.done) * self.latency_s(len(self.due))

    def leave(self, now_s: float) -> list[Call]:
        """Return the calls that end now."""
        self._go_on(now_s)
        self.done = max(self.done, self.due[0][0])
        return [heapq.heappop(self.due)[2]]


class Slots(Server):
    """So many calls at once, the others wait in line: llama-server, Ollama."""

    def __init__(self, rng: random.Random, slots: int, lasts_s: float, sigma: float = 0.2) -> None:
        super().__init__(rng)
        self.slots, self.lasts_s, self.sigma = slots, lasts_s, sigma
        self.waiting: deque[Call] = deque()
        self.due: list[tuple[float, int, Call]] = []
        self.entered = 0

    def enter(self, call: Call, now_s: float) -> None:
        """Take a call in."""
        self.waiting.append(call)
        self._start(now_s)

    def _start(self, now_s: float) -> None:
        while self.waiting and len(self.due) < self.slots:
            self.entered += 1
            ends_s = now_s + self.lasts_s * varied(self.rng, self.sigma)
            heapq.heappush(self.due, (ends_s, self.entered, self.waiting.popleft()))

    def next_s(self) -> float:
        """Return when something happens by itself."""
        return self.due[0][0] if self.due else math.inf

    def leave(self, now_s: float) -> list[Call]:
        """Return the calls that end now."""
        ended = heapq.heappop(self.due)[2]
        self._start(now_s)
        return [ended]


class Batches(Server):
    """Takes what waits, at most so many, works on all of it together, and answers all of it at once."""

    def __init__(self, rng: random.Random, most: int = 32, alone_s: float = 0.2, each_s: float = 0.01) -> None:
        super().__init__(rng)
        self.most, self.alone_s, self.each_s = most, alone_s, each_s
        self.waiting: deque[Call] = deque()
        self.running: list[Call] = []
        self.ends_s = math.inf

    def enter(self, call: Call, now_s: float) -> None:
        """Take a call in."""
        self.waiting.append(call)
        if not self.running and self.ends_s == math.inf:
            self.ends_s = now_s + 0.005  # gathers for a moment

    def next_s(self) -> float:
        """Return when something happens by itself."""
        return self.ends_s

    def leave(self, now_s: float) -> list[Call]:
        """Return the calls that end now."""
        ended, self.running = self.running, []
        while self.waiting and len(self.running) < self.most:
            self.running.append(self.waiting.popleft())
        lasts_s = self.alone_s + self.each_s * len(self.running)
        self.ends_s = now_s + lasts_s if self.running else math.inf
        return ended


class Steps(Server):
    """vLLM, in the steps of its engine: a step takes so many tokens, those of new prompts and one of each other call.

    It assumes a varying delay before the engine (HTTP, words into tokens), longer or shorter for seconds, that moves
    all calls of a round together until a queue hides it. Fitted by hand to rates measured on an H200, where rounds did
    move together; why they do is not established. The first step with more prompts than any before compiles, and
    everybody waits.
    """

    PROMPT, ANSWER, BUDGET = 900, 16, 8_192
    STEP_S, TOKEN_S, COMPILES_S = 0.023, 6.1e-6, 0.7
    BEFORE_S, MOVES, STAYS_S = 0.08, 0.7, 3.0
    """Before the engine, as assumed: the median, how far its logarithm moves, and for how long it stays there."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.arriving: deque[tuple[float, Call]] = deque()
        self.waiting: deque[tuple[Call, int]] = deque()
        self.running: list[tuple[int, Call]] = []
        self.steps = self.widest = 0
        self.ends_s = math.inf
        self.moved, self.moved_at_s = 0.0, 0.0

    def enter(self, call: Call, now_s: float) -> None:
        """Take a call in."""
        stays = math.exp((self.moved_at_s - now_s) / self.STAYS_S)
        self.moved = stays * self.moved + self.rng.gauss(0, self.MOVES) * math.sqrt(1 - stays * stays)
        self.moved_at_s = now_s
        arrives_s = now_s + self.BEFORE_S * math.exp(self.moved)
        self.arriving.append((max(arrives_s, self.arriving[-1][0] if self.arriving else 0.0), call))

    def next_s(self) -> float:
        """Return when something happens by itself."""
        return min(self.ends_s, self.arriving[0][0] if self.arriving else math.inf)

    def leave(self, now_s: float) -> list[Call]:
        """Return the calls that end now."""
        while self.arriving and self.arriving[0][0] <= now_s:
            self.waiting.append((self.arriving.popleft()[1], self.PROMPT))
        if now_s < self.ends_s < math.inf:
            return []
        ended = [call for last, call in self.running if last <= self.steps]
        self.running = [one for one in self.running if one[0] > self.steps]
        self._step(now_s)
        return ended

    def _step(self, now_s: float) -> None:
        left, prompts = self.BUDGET - len(self.running), 0
        while self.waiting and left > 0:
            call, tokens = self.waiting.popleft()
            prompts += 1
            if tokens > left:
                self.waiting.appendleft((call, tokens - left))
            else:
                self.running.append((self.steps + self.ANSWER, call))
            left = max(0, left - tokens)
        self.steps += 1
        lasts_s = max(self.STEP_S, self.TOKEN_S * (self.BUDGET - left))
        if prompts > self.widest:
            self.widest, lasts_s = 2 * prompts, lasts_s + self.COMPILES_S
        self.ends_s = now_s + lasts_s if left < self.BUDGET else math.inf


class Refusing(Server):
    """Refuses what comes above a number of calls (429), and is another server up to there."""

    def __init__(self, within: Server, most: int) -> None:
        super().__init__(within.rng)
        self.within, self.most, self.running = within, most, 0
        self.refused: deque[tuple[float, Call]] = deque()

    def enter(self, call: Call, now_s: float) -> None:
        """Take a call in."""
        if self.running >= self.most:
            call.error = Busy("429")
            self.refused.append((now_s + GAP_S, call))
        else:
            self.running += 1
            self.within.enter(call, now_s)

    def next_s(self) -> float:
        """Return when something happens by itself."""
        return min(self.within.next_s(), self.refused[0][0] if self.refused else math.inf)

    def leave(self, now_s: float) -> list[Call]:
        """Return the calls that end now."""
        if self.refused and self.refused[0][0] <= now_s:
            return [self.refused.popleft()[1]]
        ended = self.within.leave(now_s)
        self.running -= len(ended)
        return ended


def varied(rng: random.Random, sigma: float) -> float:
    """Return a factor with mean 1: lognormal."""
    return math.exp(rng.gauss(-sigma * sigma / 2, sigma)) if sigma else 1.0


def measured_curve(points: Sequence[tuple[int, float]]) -> Callable[[int], float]:
    """Return the latency over the number of calls, from measured goodputs; straight between them on log paper."""
    latencies = [(math.log(calls), math.log(calls / per_s)) for calls, per_s in points]

    def latency_s(calls: int) -> float:
        at = math.log(calls)
        if at <= latencies[0][0]:
            return math.exp(latencies[0][1])  # alone, or nearly
        for (left, low), (right, high) in pairwise(latencies):
            if at <= right:
                return math.exp(low + (high - low) * (at - left) / (right - left))
        (left, low), (right, high) = latencies[-2:]
        return math.exp(high + (at - right) * (high - low) / (right - left))

    return latency_s


VLLM = measured_curve([(16, 145), (64, 255), (128, 287), (256, 335), (512, 328), (1024, 297)])
"""One H200, vLLM 0.22.1, a 1.5 B model, 16 tokens out."""
TRANSFORMERS = measured_curve([(64, 44), (256, 74), (512, 69)])

SERVERS: dict[str, Callable[[random.Random], Server]] = {
    "stub": Stub,
    "stub_noisy": lambda rng: Stub(rng, sigma=0.5),
    "vllm": lambda rng: Shared(rng, VLLM),
    "vllm_noisy": lambda rng: Shared(rng, VLLM, sigma=0.8),
    "vllm_steps": Steps,
    "transformers": lambda rng: Shared(rng, TRANSFORMERS),
    "one_at_a_time": lambda rng: Slots(rng, 1, 0.2),
    "slots_4": lambda rng: Slots(rng, 4, 0.5),
    "slots_16": lambda rng: Slots(rng, 16, 1.0),
    "batches_32": Batches,
    "refuses_64": lambda rng: Refusing(Stub(rng), 64),
}


@dataclass(slots=True)
class Seen:
    """What came out of one worker."""

    latencies_s: list[float] = field(default_factory=list)


class Simulation:
    """Workers that always have a backlog, on one server."""

    def __init__(
        self,
        make: Callable[[random.Random], Server],
        *,
        workers: int,
        fixed: int | None = None,
        seed: int = 1,
        apart_s: float = 0.0,
        joins_s: Sequence[float] = (),
        timeout_s: float = 30.0,
    ) -> None:
        self.rng = random.Random(seed)
        self.server = make(self.rng)
        self.timeout_s = timeout_s
        self.now_s = 0.0
        self.endpoints = []
        self.seen = [Seen() for _ in range(workers)]
        self.starts: list[tuple[float, int]] = []
        self.travels: deque[tuple[float, Call]] = deque()
        for worker in range(workers):
            ahead_s = 1_000_000.0 + (self.rng.random() * apart_s if apart_s else self.rng.gauss(0, 0.005))
            auto = None if fixed is not None else AutoLimit(MOST, wall_clock_s=lambda a=ahead_s: self.now_s + a)
            breaker = Breaker(BreakerSettings(), lambda *_: None)
            self.endpoints.append(Endpoint(worker, "sim", fixed or MOST, breaker, auto=auto))
            joins = joins_s[worker] if joins_s else self.rng.random() * 5
            heapq.heappush(self.starts, (joins, worker))

    def run(self, until_s: float, *, measured_from_s: float) -> None:
        """Run to a moment; only calls that end after `measured_from_s` are noted."""
        while True:
            starts_s = self.starts[0][0] if self.starts else math.inf
            arrives_s = self.travels[0][0] if self.travels else math.inf
            self.now_s = min(starts_s, arrives_s, self.server.next_s())
            if self.now_s >= until_s:
                return
            if arrives_s <= self.now_s:
                self.server.enter(self.travels.popleft()[1], self.now_s)
                continue
            if starts_s <= self.now_s:
                self._fill(heapq.heappop(self.starts)[1])
                continue
            for call in self.server.leave(self.now_s):
                self._end(call, measured_from_s)

    def _fill(self, worker: int) -> None:
        endpoint = self.endpoints[worker]
        while endpoint.admits(self.now_s):
            self.travels.append((self.now_s + GAP_S, Call(worker, endpoint.enter(self.now_s), self.now_s)))
        if self.now_s < endpoint.cool_until_s:
            heapq.heappush(self.starts, (endpoint.cool_until_s, worker))

    def _end(self, call: Call, measured_from_s: float) -> None:
        endpoint = self.endpoints[call.worker]
        lasted_s = self.now_s - call.began_s
        error = call.error or (TimedOut("late") if lasted_s > self.timeout_s else None)
        endpoint.settle(call.grant, error, self.now_s)
        seen = self.seen[call.worker]
        if error is None and self.now_s >= measured_from_s:
            seen.latencies_s.append(lasted_s)
        self._fill(call.worker)


def p99_s(latencies_s: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(latencies_s)[int(0.99 * len(latencies_s))] if latencies_s else math.inf


def jain(rates: Sequence[float]) -> float:
    """Return Jain's index: 1 when all have the same, 1/n when one has it all."""
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates)) if any(rates) else 0.0


def fixed_figures(name: str, limit: int, seed: int) -> tuple[float, float]:
    """Return goodput and P99 of one worker with a fixed limit."""
    one = Simulation(SERVERS[name], workers=1, fixed=limit, seed=seed)
    one.run(80, measured_from_s=20)
    return len(one.seen[0].latencies_s) / 60, p99_s(one.seen[0].latencies_s)


def best_fixed(name: str, seed: int) -> tuple[int, float, float]:
    """Return the fixed limit with the highest goodput, the smallest within 0.5 % of it; its goodput and its P99."""
    tried = {
        limit: fixed_figures(name, limit, seed)
        for limit in (1, 2, 3, 4, 6, 8, 12, 16, 32, 48, 64, 96, 128, 192, 256, 320, 512)
    }
    most = max(per_s for per_s, _ in tried.values())
    limit = min(limit for limit, (per_s, _) in tried.items() if per_s >= 0.995 * most)
    return limit, *tried[limit]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--server", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--apart", type=float, default=0.0)
    asked = parser.parse_args()
    print("| server | workers | best fixed N | goodput, % | P99 x | first minute, % | fairness | limits at the end |")
    print("|---|---|---|---|---|---|---|---|")
    for name in asked.server:
        best = best_fixed(name, asked.seed)
        for workers in asked.workers:
            one = Simulation(SERVERS[name], workers=workers, seed=asked.seed, apart_s=asked.apart)
            print(f"| {name} | {workers} | {best[0]} | {row(one, 60 * asked.minutes, *best[1:])} |", flush=True)


def row(one: Simulation, span_s: float, best_per_s: float, best_p99_s: float) -> str:
    """Run a simulation and return its figures beside those of the best fixed limit."""
    one.run(60, measured_from_s=0)
    early = sum(len(seen.latencies_s) for seen in one.seen) / 60
    for seen in one.seen:
        seen.latencies_s.clear()
    one.run(span_s, measured_from_s=span_s / 2)
    rates = [len(seen.latencies_s) / (span_s / 2) for seen in one.seen]
    every = [lasted_s for seen in one.seen for lasted_s in seen.latencies_s]
    kept = [endpoint.auto.state.kept for endpoint in one.endpoints if endpoint.auto]
    figures = [
        f"{100 * sum(rates) / best_per_s:.1f}",
        f"{p99_s(every) / best_p99_s:.2f}",
        f"{100 * early / best_per_s:.0f}",
        f"{jain(rates):.2f}",
        ", ".join(map(str, kept)),
    ]
    return " | ".join(figures)


if __name__ == "__main__":
    main()
