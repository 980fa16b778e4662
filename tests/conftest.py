"""Brokers for every test folder: `kafka` (real), `secured` (real), `embedded` (the mock), `broker` (real and mock).

Stands over them: `real`, `quick`, `stand` in the same order.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import llm_settings
from tests.support.embedded import EmbeddedKafka
from tests.support.kafka import KafkaBroker, NoKafkaError, ensure_jars
from tests.support.proxied_kafka import ProxiedKafka
from tests.support.secured_kafka import SecuredKafka
from tests.support.stand import Broker, Simulate, Stand
from tests.support.tcp_proxy import TcpProxy
from workers.demo.processes import SimulatedModel

# A loaded machine is no failure; in CI the examples are the same each time, so that a change is what fails.
settings.register_profile(
    "penstock", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("penstock")

NO_KAFKA = "no real Kafka"


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """The real broker's jars; without them tests are skipped here, and fail where CI is set."""
    try:
        return ensure_jars()
    except NoKafkaError as exc:
        if os.environ.get("CI"):
            pytest.fail(f"{NO_KAFKA}: {exc}")
        pytest.skip(f"{NO_KAFKA}: {exc}")


@pytest.fixture(scope="session")
def kafka(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A real broker, shared by the whole run: tests use topics of their own and leave it running."""
    del kafka_jars
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def secured(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A real broker with TLS, SASL and rights, shared like `kafka`."""
    del kafka_jars
    with SecuredKafka(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture
def own_kafka(kafka_jars: Path, tmp_path: Path) -> Iterator[KafkaBroker]:
    """A real broker for one test that stops, kills or freezes it."""
    del kafka_jars
    with KafkaBroker(tmp_path / "kafka") as running:
        yield running


@pytest.fixture(scope="session")
def proxied_kafka(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedKafka]:
    """A real broker behind a link that tests break, for tests that leave it running and its link whole."""
    del kafka_jars
    # Kafka's default: a broker that was frozen for longer is no broker any more to its own controller.
    registered = {"broker.session.timeout.ms": "9000"}
    folder = tmp_path_factory.mktemp("proxied")
    with TcpProxy() as proxy, ProxiedKafka(folder, proxy, properties=registered) as running:
        yield running


@pytest.fixture(params=["aiohttp", "lean"])
def http_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Clients of `tests.support.llm_settings` speak HTTP with each, one after the other."""
    monkeypatch.setattr(llm_settings, "HTTP_CLIENT", request.param)
    return str(request.param)


@pytest.fixture
def embedded() -> Iterator[EmbeddedKafka]:
    """An embedded broker for one test."""
    with EmbeddedKafka() as running:
        yield running


@pytest.fixture(params=["kafka", "embedded"])
def broker(request: pytest.FixtureRequest) -> KafkaBroker | EmbeddedKafka:
    """Both brokers, one after the other: the fake and the real thing pass the same tests."""
    running: KafkaBroker | EmbeddedKafka = request.getfixturevalue(request.param)
    return running


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it loudly when the tests on a real broker did not run."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", []) if not report.passed]
    if without := [reason for reason in reasons if NO_KAFKA in reason]:
        line = f"{len(without)} TESTS ON A REAL KAFKA DID NOT RUN: {without[0]}"
        terminalreporter.write_line(line, red=True, bold=True)
