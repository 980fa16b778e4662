"""The bench's rounds: who works on what, in which order, and what becomes of trouble in one cell."""

from tests.bench.matrix.__main__ import taking_part, tried
from tests.bench.matrix.contenders import CONTENDERS
from tests.bench.matrix.workloads import Case

CASE = Case(workload="W1", name="64", latency="zero", slots=64, records=4, workers=("penstock", "connect", "go_plain"))
ALL = CONTENDERS


def test_the_order_of_the_workers_turns_with_each_round() -> None:
    """Nobody always runs after the same one, or first."""
    rounds = [taking_part(CASE, ALL, number, named=False) for number in range(4)]
    assert rounds == [
        ["penstock", "connect", "go_plain"],
        ["connect", "go_plain", "penstock"],
        ["go_plain", "penstock", "connect"],
        ["penstock", "connect", "go_plain"],
    ]


def test_who_is_named_takes_part_in_everything() -> None:
    """`make bench W=W6 PEERS=faust` means it; without a name a workload says who takes part."""
    faust = {"faust": CONTENDERS["faust"]}
    assert taking_part(CASE, faust, 1, named=True) == ["faust"]
    assert taking_part(CASE, faust, 1, named=False) == []


async def test_trouble_in_one_cell_is_a_failed_line() -> None:
    """Hours of others' figures are not lost with it."""

    async def broken() -> dict[str, object]:
        raise RuntimeError("no broker")

    figures = await tried(broken())
    assert "no broker" in figures["failed"]
    assert "Traceback" in figures["log"]
