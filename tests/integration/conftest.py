"""Stands over the shared real broker, over an embedded one, and over both in turn."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.embedded import EmbeddedKafka
from tests.support.kafka import KafkaBroker
from tests.support.stand import Broker, Simulate, Stand
from workers.demo.processes import SimulatedModel


@pytest.fixture
def stand(broker: Broker, tmp_path: Path) -> Stand:
    """Both brokers, one after the other."""
    return Stand(broker, tmp_path)


@pytest.fixture
def real(kafka: KafkaBroker, tmp_path: Path) -> Stand:
    """The real broker, for what the embedded one cannot show."""
    return Stand(kafka, tmp_path)


@pytest.fixture
def quick(embedded: EmbeddedKafka, tmp_path: Path) -> Stand:
    """The embedded broker, for what the model does."""
    return Stand(embedded, tmp_path)


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Start simulated models: `simulate(latency="const:0.02")`. They end with the test."""
    with ExitStack() as models:
        yield lambda **settings: models.enter_context(SimulatedModel(**settings))
