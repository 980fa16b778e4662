"""One of two endpoints fails under load, in the ways in which servers do: the bench's run, made short."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.one_of_two import Times, run
from tests.support.embedded import EmbeddedKafka

SHORT = Times(before_s=2.0, outage_s=5.0, after_s=3.0, settle_s=1.0)
TRIALS = 20


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedKafka]:
    """A broker for all of them."""
    with EmbeddedKafka() as broker:
        yield broker


@pytest.mark.fault("E2", "E16", "E23", "E28")
@pytest.mark.parametrize("mode", ["503", "500", "kill"])
async def test_an_outage_of_one_of_two_sends_nobody_down_the_ladder(
    broker: EmbeddedKafka, tmp_path: Path, mode: str
) -> None:
    """Nothing lost, nothing twice, everything enriched; after its breaker opened the dead one gets a trial a second."""
    found = await run(mode, broker, tmp_path, SHORT)
    assert (found["lost"], found["twice"], found["down_the_ladder"], found["exit"]) == (0, 0, 0, 0)
    assert found["failed_calls"] > 0
    assert found["failed_after_opened"] < TRIALS
    assert found["retries_refused"] == 0
