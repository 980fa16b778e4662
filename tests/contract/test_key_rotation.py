"""E18: the API key changes while the worker runs. Its file is read again when the old key is refused, and only then."""

import asyncio
from pathlib import Path

import pytest

from tests.support import fault_server as http
from tests.support.llm_settings import Serve, Start, ask, passage, until
from workers.errors import Misconfigured
from workers.settings.variables import Variables

OLD, NEW = "key-of-may", "key-of-june"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with the old key."""
    file = tmp_path / "key"
    file.write_text(f"{OLD}\n")
    return file


def put(file: Path, key: str) -> None:
    """Rotate the key."""
    file.write_text(key)


def written(file: Path) -> str:
    """Return the key as a configuration reads it from its file."""
    return Variables(environ={}, folder=file.parent).expand(f"${{file:{file.name}}}").text


@pytest.mark.fault("E18")
@pytest.mark.parametrize("code", [401, 403])
async def test_a_rotated_key_is_read_again_and_the_request_made_once_more(
    serve: Serve, start: Start, key_file: Path, code: int
) -> None:
    """The record is answered within one attempt, the breaker stays closed, later requests begin with the new key."""
    server = await serve(http.status(code))
    client = await start(server.url, api_key=written(key_file))
    put(key_file, f"{NEW}\n")
    way = passage()
    assert (await ask(client, way)).text == "ok"
    assert (way.attempts, client.held_reason()) == (1, None)
    await ask(client)
    assert [seen.headers["authorization"] for seen in server.requests] == [f"Bearer {OLD}", *[f"Bearer {NEW}"] * 2]


@pytest.mark.fault("E18")
async def test_calls_that_are_refused_together_all_go_on_with_the_new_key(
    serve: Serve, start: Start, key_file: Path
) -> None:
    """Whoever was refused with the old key asks once more, also after another call has read the new one."""
    gate = asyncio.Event()
    server = await serve(*[http.once(gate, http.status(401))] * 4)
    client = await start(server.url, api_key=written(key_file))
    calls = asyncio.gather(*(ask(client) for _ in range(4)))
    await until(lambda: server.running == 4)
    put(key_file, NEW)
    gate.set()
    assert [reply.text for reply in await calls] == ["ok"] * 4
    assert [seen.headers["authorization"] for seen in server.requests[4:]] == [f"Bearer {NEW}"] * 4


@pytest.mark.fault("E18")
@pytest.mark.parametrize("now", [OLD, "", "key\u00e9", "a\nb-c"], ids=["same", "empty", "not ASCII", "two lines"])
async def test_without_a_new_key_it_is_a_fault_of_configuration(
    serve: Serve, start: Start, key_file: Path, now: str
) -> None:
    """One request, and the model is held, whatever cannot be sent stands in the file."""
    server = await serve(http.status(401))
    client = await start(server.url, api_key=written(key_file), breaker={"reset_timeout_s": 60})
    put(key_file, now)
    with pytest.raises(Misconfigured, match="401"):
        await ask(client)
    assert len(server.requests) == 1
    assert client.held_reason() is not None


@pytest.mark.fault("E18")
async def test_a_new_key_that_is_refused_as_well_is_tried_once(serve: Serve, start: Start, key_file: Path) -> None:
    """I10: two requests, then the model is held; neither key is in what is said about it."""
    server = await serve(default=http.status(403, {"error": {"message": f"no such key: {NEW}"}}))
    client = await start(server.url, api_key=written(key_file), breaker={"reset_timeout_s": 60}, max_attempts=3)
    put(key_file, NEW)
    with pytest.raises(Misconfigured, match="403") as raised:
        await ask(client)
    with pytest.raises(Misconfigured):
        await ask(client)
    assert len(server.requests) == 2
    said = f"{raised.value} {client.held_reason()}"
    assert OLD not in said
    assert NEW not in said


@pytest.mark.fault("E18")
async def test_a_trial_finds_the_key_that_a_person_put_right(serve: Serve, start: Start, key_file: Path) -> None:
    """Held for a wrong key, the worker goes on by itself when the file has the right one: no restart."""
    server = await serve(http.status(401), http.status(401))
    client = await start(server.url, api_key=written(key_file), breaker={"reset_timeout_s": 0.05})
    with pytest.raises(Misconfigured):
        await ask(client)
    put(key_file, NEW)
    assert (await ask(client, wait_s=10.0)).text == "ok"
    assert server.requests[-1].headers["authorization"] == f"Bearer {NEW}"
    assert client.held_reason() is None
