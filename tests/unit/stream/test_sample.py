"""How many records of each partition a sample takes."""

from hypothesis import given
from hypothesis import strategies as st

from workers.stream.sample import shared


def test_even_shares() -> None:
    """Partitions that have enough give the same, but for what does not divide."""
    assert sorted(shared({"a": 100, "b": 100, "c": 100}, 20).values()) == [6, 7, 7]


def test_a_small_partition_is_made_up_for() -> None:
    """What one partition lacks, the others give."""
    assert shared({"a": 4, "b": 100, "c": 0}, 20) == {"a": 4, "b": 16, "c": 0}


@given(st.dictionaries(st.integers(), st.integers(0, 50), max_size=12), st.integers(0, 60))
def test_as_many_as_there_are_and_no_more(sizes: dict[int, int], count: int) -> None:
    """All shares together are the count, or all that is there; none exceeds its partition."""
    shares = shared(sizes, count)
    assert sum(shares.values()) == min(count, sum(sizes.values()))
    assert all(0 <= shares[name] <= size for name, size in sizes.items())
