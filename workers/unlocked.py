"""Counters and histograms for what every record counts: a sum in a slot, without a lock, read when somebody scrapes.

prometheus_client's own take a lock and go through half a dozen calls, for the sake of threads; here only the event loop
counts, and it writes the page as well. What is seen from outside is the same, by prometheus_client's custom collectors.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Count on."""
        self.value += amount


class Spread:
    """One series of a histogram: how many values are within each bound, and not within the one before."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * len(bounds)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value; a bound is within its own bucket."""
        self.sum += value
        self.counts[bisect_left(self.bounds, value)] += 1


class Counts(Collector):
    """A counter with its series."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._series: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """Return the series of these label values, which is there from now on."""
        return self._series.setdefault(values, Count())

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Say the name, which must be nobody else's."""
        yield CounterMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return what was counted."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        yield family


class Spreads(Collector):
    """A histogram with its series."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = [*bounds, math.inf]
        self._series: dict[tuple[str, ...], Spread] = {}
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        """Return the series of these label values, which is there from now on."""
        return self._series.setdefault(values, Spread(self._bounds))

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Say the name, which must be nobody else's."""
        yield HistogramMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return what was observed."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [floatToGoString(bound) for bound in self._bounds]  # type: ignore[no-untyped-call]
        for values, series in self._series.items():
            buckets = list(zip(names, map(float, accumulate(series.counts)), strict=True))
            family.add_metric(values, buckets, series.sum)
        yield family
