"""A few minutes of what `make soak HOURS=n` does for hours."""

import argparse
from pathlib import Path

import pytest

from tests.bench.soak import soak
from tests.support.proxied_kafka import ProxiedKafka
from tests.support.tcp_proxy import TcpProxy

RSS_MAX_MIB = 200
DESCRIPTORS_MAX = 150


@pytest.mark.timeout(400)
@pytest.mark.fault("P13")
async def test_a_short_soak(kafka_jars: Path, tmp_path: Path) -> None:
    """A minute at 70 % load with a fault every 20 s: nothing lost, memory and descriptors bounded."""
    del kafka_jars
    options = argparse.Namespace(hours=1 / 60, fault_every_s=20.0, seed=3)
    with TcpProxy() as proxy, ProxiedKafka(tmp_path / "kafka", proxy) as broker:
        figures = await soak(tmp_path, broker, proxy, options)
    assert len(figures["faults_done"]) >= 1
    assert figures["slopes"]["rss_mib"] < RSS_MAX_MIB
    assert figures["slopes"]["descriptors"] < DESCRIPTORS_MAX
