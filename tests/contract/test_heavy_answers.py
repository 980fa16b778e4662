"""E7: what a server sends is read up to `max_response_bytes`, and never decompressed."""

import pytest

from tests.support import fault_server as http
from tests.support.llm_settings import Serve
from tests.support.resident_memory import cost_of

MIB = 1 << 20
HEAVY_BYTES = 200 * MIB
SPARED_BYTES = 16 * MIB


@pytest.mark.fault("E7")
@pytest.mark.parametrize(
    ("step", "reason"),
    [
        pytest.param(http.heavy(HEAVY_BYTES), "response_too_large", id="200 MiB"),
        pytest.param(http.flood(), "response_too_large", id="without end"),
        pytest.param(http.bomb(HEAVY_BYTES), "bad_envelope", id="200 MiB in gzip"),
    ],
)
async def test_an_enormous_answer_costs_next_to_nothing(serve: Serve, step: http.Step, reason: str) -> None:
    """I8: the client reads 1 MiB and closes the connection; its memory grows by no more than buffers do."""
    server = await serve(http.answer(), step)
    assert await cost_of(server.url, MIB) == (reason, pytest.approx(0, abs=SPARED_BYTES))
    assert server.requests[1].headers["accept-encoding"] == "identity"


async def test_the_measurement_sees_what_a_body_costs(serve: Serve) -> None:
    """Without the limit a body is held as a whole: the test above could fail."""
    server = await serve(http.answer(), http.heavy(4 * SPARED_BYTES))
    _, grown_bytes = await cost_of(server.url, HEAVY_BYTES)
    assert grown_bytes > 3 * SPARED_BYTES
