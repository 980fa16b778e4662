"""The bench's stub endpoint: its latencies, its switch for faults, and its own counts."""

import shutil
import time
import urllib.error
import urllib.request

import pytest

from tests.bench.matrix.endpoint import Endpoint, endpoint

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no cc on the PATH")


def ask(stub: Endpoint, timeout_s: float = 30.0) -> str:
    """Make one call."""
    with urllib.request.urlopen(f"{stub.url}/v1/chat/completions", b"{}", timeout_s) as answer:  # noqa: S310 - ours
        text: str = answer.read().decode()
    return text


def test_it_answers_after_the_latency_and_counts() -> None:
    """Requests, connections, and how many ran at once."""
    with endpoint("const:0.2") as stub:
        began_s = time.monotonic()
        assert "benchmark answer" in ask(stub)
        assert time.monotonic() - began_s >= 0.2
        assert {"requests": 1, "refused": 0, "running": 0, "most_running": 1}.items() <= stub.stats().items()


def test_it_fails_as_told_and_is_back_afterwards() -> None:
    """503, a reset, silence; each for its time."""
    with endpoint("zero") as stub:
        stub.fail("503", 60)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            ask(stub)
        stub.fail("reset", 60)
        with pytest.raises(OSError, match="reset"):
            ask(stub)
        stub.fail("hang", 60)
        with pytest.raises(TimeoutError):
            ask(stub, 0.3)
        assert stub.stats()["refused"] == 3
        stub.fail("503", 0)
        assert "benchmark answer" in ask(stub)
        assert {"requests": 4, "refused": 3}.items() <= stub.stats().items()
