"""One of two endpoints fails under load, in the ways in which servers do: the bench's run, made short."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.one_of_two import Times, run
from tests.support.embedded import EmbeddedKafka

SHORT = Times(before_s=2.0, outage_s=5.0, after_s=3.0, settle_s=1.0)
USELESS = 20


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedKafka]:
    """A broker for all of them."""
    with EmbeddedKafka() as broker:
        yield broker


@pytest.mark.fault("E1", "E2", "E16", "E23", "E28")
@pytest.mark.parametrize("mode", ["503", "500", "freeze", "kill"])
async def test_an_outage_of_one_of_two_sends_nobody_down_the_ladder(
    broker: EmbeddedKafka, tmp_path: Path, mode: str
) -> None:
    """Nothing lost, nothing twice, everything enriched; the dead one gets a few calls, then a trial a second."""
    found = await run(mode, broker, tmp_path, SHORT)
    assert (found["lost"], found["twice"], found["down_the_ladder"], found["exit"]) == (0, 0, 0, 0)
    assert 0 < found["useless"] < USELESS
    assert found["opened_after_s"] > 0 or mode == "503"
    assert found["retries_refused"] == 0
