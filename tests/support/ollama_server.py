"""A real Ollama for tests, where somebody has started one: the environment says where. `run_on_ollama.sh` starts one.

Run as a program it writes the models that the server shall have: `python -m tests.support.ollama_server FOLDER`.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.support.chat_families import CHATML, FAMILIES, Family
from tests.support.llama_server import NEVER_ENDS, SLOW_TO_LOAD
from tests.support.llm_settings import ASK, passage
from tests.support.real_server import url_of
from tests.support.tiny_gguf import Shape, write_model
from workers.llm import Client
from workers.ports import Ask
from workers.records import Reply

URL = "PENSTOCK_TEST_OLLAMA_URL"
CONTEXT_TOKENS = 2_048
"""As `run_on_ollama.sh` starts the server."""
PATIENT_S = 60.0
"""For calls that shall not time out on a loaded machine."""

_GO = {
    "ROLE": "{{ .Role }}",
    "TEXT": "{{ .Content }}",
    "{% if m['role'] == 'system' %}": '{{ if eq .Role "system" }}',
    "{% else %}": "{{ else }}",
    "{% endif %}": "{{ end }}",
}


def ollama_url() -> str:
    """Return the server's root, or skip."""
    return url_of("Ollama", "ollama", URL)


def models() -> dict[str, tuple[Family, Shape | None]]:
    """Return what the server has, by name: one model of each family of chat models, one that never ends, a slow one."""
    own = {family.name.replace(" ", "-"): (family, None) for family in FAMILIES}
    return own | {"tiny": (CHATML, None), "endless": (CHATML, NEVER_ENDS), "slow": (CHATML, SLOW_TO_LOAD)}


def write_models(folder: Path) -> None:
    """Write each as NAME.gguf, and NAME.modelfile with its template in Go's language."""
    for name, (family, shape) in models().items():
        write_model(folder / f"{name}.gguf", family, shape)
        turn = family.turn
        for jinja, go in _GO.items():
            turn = turn.replace(jinja, go)
        template = f"{family.begin if family.opens else ''}{{{{ range .Messages }}}}{turn}{{{{ end }}}}{family.answer}"
        text = f'FROM ./{name}.gguf\nTEMPLATE """{template}"""\nPARAMETER num_thread 1\n'
        (folder / f"{name}.modelfile").write_text(text)


def patient(dialect: str = "ollama", **changes: object) -> dict[str, object]:
    """Return settings of a client that waits long enough."""
    return {"dialect": dialect, "timeout_s": PATIENT_S, "connect_timeout_s": 10.0, **changes}


async def asked(client: Client, what: Ask = ASK, text: str = "a ticket") -> Reply:
    """Ask something once, with time enough."""
    return await client.complete(client.frame(what).around(text), passage(PATIENT_S), wait_s=0)


async def told(url: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Return status and JSON of a route of the server's own; POST when there is a body."""
    async with (
        aiohttp.ClientSession() as session,
        session.request("GET" if body is None else "POST", url + path, json=body) as answer,
    ):
        return answer.status, orjson.loads(await answer.read())


async def unload(url: str, model: str) -> None:
    """Make the server forget a model, and wait until it has."""
    await told(url, "/api/chat", {"model": model, "messages": [], "keep_alive": 0, "stream": False})
    while await loaded(url, model):  # noqa: ASYNC110 - the server sets no event
        await asyncio.sleep(0.02)


async def loaded(url: str, model: str) -> dict[str, Any] | None:
    """Return what the server says of a model that it has in memory, None when it has not."""
    _, said = await told(url, "/api/ps")
    return next((one for one in said["models"] if one["name"] == f"{model}:latest"), None)


if __name__ == "__main__":
    write_models(Path(sys.argv[1]))
