"""What a server says of itself is asked by GET, once, and is worth no failure."""

from tests.support import fault_server
from tests.support.llm_settings import Serve, Start
from workers.llm import Card


async def test_the_client_asks_its_first_endpoint_and_takes_no_for_nothing(serve: Serve, start: Start) -> None:
    """Each path once, by GET; a 404, a login page and a 501 are no answer, and no failure."""
    server = await serve(
        fault_server.status(404),
        fault_server.page(),
        fault_server.status(501),
        default=fault_server.status(200, {"total_slots": 2}),
    )
    client = await start(server.url, dialect="llamacpp")
    assert await client.card() == Card()
    assert [(one.method, one.path) for one in server.requests] == [
        ("GET", path) for path in ("/v1/models", "/props", "/metrics")
    ]
    server.requests.clear()
    assert await client.card() == Card(slots=2)
