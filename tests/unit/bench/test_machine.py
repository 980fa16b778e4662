"""What a bench says of the machine."""

import pytest

from tests.bench.matrix.machine import SLOW_BUILD, build


@pytest.mark.parametrize(
    ("configured_with", "prefix", "said"),
    [
        ("'--enable-shared' '--enable-optimizations' '--with-lto'", "/usr/local", "built with optimization"),
        ("'--enable-shared' '--prefix=/usr'", "/usr", "a distribution's build"),
        ("'--prefix=/opt/python-3.11.7'", "/opt/python-3.11.7", SLOW_BUILD),
    ],
)
def test_a_python_says_how_it_was_built(configured_with: str, prefix: str, said: str) -> None:
    """Figures of a Python without profiles are not those of the image that users run."""
    assert build(configured_with, prefix) == said
