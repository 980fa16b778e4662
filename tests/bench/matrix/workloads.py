"""The workloads as data, and the arithmetic that belongs to them."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.support.topics import New

TEXT = "my invoice is wrong and the app crashes " * 19
"""With the frame around it 0.8 KB."""
TIMEOUT_S = 5.0
PARTITIONS = 8
WARM_UP, UNTIL = 0.2, 0.9
"""The shares of the records between which the clock runs: start-up and the last stragglers stay outside."""

Shape = Literal["steady", "outage", "kill", "join"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One workload with its numbers."""

    workload: str
    name: str
    latency: str
    """As the stub takes it: `zero`, `const:0.15`, `mix:0.15:2:0.1`."""
    slots: int
    records: int
    keys: int = 5_000
    knee: int = 0
    """Calls at once from which on goodput falls; 0: latency does not depend on load."""
    auto: bool = False
    """Penstock shall find the number of calls itself; `slots` is then only the most there may be."""
    hot_share: float = 0.0
    """Of the records, those whose text is one of 1 % of the texts."""
    shape: Shape = "steady"
    fault: str = ""
    fault_s: float = 0.0
    fault_at: float = 0.3
    """The share of the records that are done when the fault begins."""
    workers: tuple[str, ...] = ()
    """Only these take part; empty: all."""
    penstock: Mapping[str, Any] = field(default_factory=dict)
    """What Penstock's task says beside the rest: switches that belong to the workload."""
    may_default: bool = False
    """An answer of the ladder counts too."""
    limit_s: float = 240.0
    """A worker that needs longer has failed."""

    @property
    def id(self) -> str:
        """Workload and case in one word."""
        return f"{self.workload}-{self.name}" if self.name else self.workload

    @property
    def mean_latency_s(self) -> float:
        """What a call takes on average."""
        kind, *numbers = self.latency.split(":")
        if kind == "const":
            return float(numbers[0])
        if kind == "mix":
            usual_s, slow_s, share = map(float, numbers)
            return usual_s * (1 - share) + slow_s * share
        return 0.0

    def waves_s(self, about_s: float) -> float:
        """Return a whole number of mean latencies, about so many seconds: calls of one length come back in waves."""
        latency_s = self.mean_latency_s
        return max(1, round(about_s / latency_s)) * latency_s if latency_s else about_s

    @property
    def ideal_per_s(self) -> float | None:
        """Little's law: slots / latency, with fewer keys keys / latency; None without a latency of its own."""
        return min(self.slots, self.keys) / self.mean_latency_s if self.mean_latency_s and not self.knee else None


def texts(case: Case) -> list[int]:
    """Return the text's number of each record: its own, or with a hot share, often one of 1 %."""
    if not case.hot_share:
        return list(range(case.records))
    rng, hot = random.Random(7), max(1, case.records // 100)
    return [
        rng.randrange(hot) if rng.random() < case.hot_share else rng.randrange(hot, case.records)
        for _ in range(case.records)
    ]


def records(case: Case) -> Iterator[New]:
    """Yield the input: ids rise, so that a key's ids rise as well."""
    for number, text in enumerate(texts(case)):
        yield New(key=b"k%d" % (number % case.keys), value=b'{"id":%d,"text":"%d %b"}' % (number, text, TEXT.encode()))


def _slots(*, seconds: float) -> list[Case]:
    return [
        Case(
            workload="W1",
            name=str(slots),
            latency="const:0.15",
            slots=slots,
            records=int(slots / 0.15 * seconds) // 100 * 100,
        )
        for slots in (64, 256, 1024)
    ]


def _outages(modes: tuple[str, ...], *, records: int) -> list[Case]:
    held = [
        Case(
            workload="W5",
            name=mode,
            latency="const:0.15",
            slots=64,
            records=records,
            shape="outage",
            fault=mode,
            fault_s=8.0,
            penstock={"when_unavailable": "hold"},
        )
        for mode in modes
    ]
    # With `fallback` the backlog goes down the ladder while the model is away: nothing is left to recover with.
    sent_on = [
        Case(
            workload="W5",
            name=f"{mode}-fallback",
            latency="const:0.15",
            slots=64,
            records=records,
            shape="outage",
            fault=mode,
            fault_s=8.0,
            workers=("penstock",),
            penstock={"when_unavailable": "fallback"},
            may_default=True,
        )
        for mode in modes
    ]
    return held + sent_on


def _knee(name: str, slots: int, **more: Any) -> Case:
    one = Case(workload="W8", name=name, latency="const:0.3", knee=128, slots=slots, records=12_000)
    return replace(one, workers=("penstock",), **more)


MIXED = "mix:0.15:2:0.1"
SHARING: Mapping[str, Any] = {"share_calls": True, "cache": {}}
KEYED = ("penstock_key", "penstock", "parallel_consumer_key")

SHORT: tuple[Case, ...] = (
    *_slots(seconds=6)[:2],
    Case(workload="W3", name="256", latency="zero", slots=256, records=30_000),
    Case(workload="W4", name="", latency="const:0.15", slots=256, records=8_000, hot_share=0.8, penstock=SHARING),
    _outages(("503",), records=5_000)[0],
)
"""Those of `make bench`."""

FULL: tuple[Case, ...] = (
    *_slots(seconds=12),
    Case(workload="W2", name="", latency=MIXED, slots=256, records=12_000),
    Case(workload="W3", name="256", latency="zero", slots=256, records=60_000),
    Case(workload="W4", name="", latency="const:0.15", slots=256, records=16_000, hot_share=0.8, penstock=SHARING),
    *_outages(("503", "reset", "hang"), records=8_000),
    *(
        Case(
            workload="W6",
            name=name,
            latency=latency,
            slots=256,
            records=1_000_000,
            workers=("penstock", "connect", "go_plain"),
            limit_s=900.0,
        )
        for name, latency in (("zero", "zero"), ("5ms", "const:0.005"))
    ),
    Case(workload="W7", name="", latency=MIXED, slots=256, records=12_000, shape="kill", fault_at=0.5),
    *(_knee(str(slots), slots) for slots in (32, 64, 128, 256, 512)),
    _knee("auto", 1_024, auto=True),
    Case(workload="W9", name="", latency="const:0.15", slots=64, records=16_000, shape="join", fault_at=0.15),
    Case(workload="W10", name="1000", latency="const:0.15", slots=256, keys=1_000, records=15_000, workers=KEYED),
    Case(workload="W10", name="10", latency="const:0.15", slots=256, keys=10, records=1_000, workers=KEYED),
)
"""Those of `make bench-full`."""


def selected(usual: Sequence[Case], every: Sequence[Case], asked: Sequence[str]) -> list[Case]:
    """Return the usual cases; those of a workload or with an id that is asked for, wherever they are.

    Raises:
        KeyError: there is no such workload or case.
    """
    found = list(usual) if not asked else []
    for name in asked:
        for cases in (usual, every):
            if matching := [case for case in cases if name in (case.workload, case.id)]:
                found += matching
                break
        else:
            raise KeyError(name)
    return found


def scaled(case: Case, share: float) -> Case:
    """Return the case with so much of its records."""
    return replace(case, records=max(100, int(case.records * share)))
