"""A real vLLM for tests, where somebody has started one: the environment says where. `run_on_vllm.sh` starts one."""

import json

import aiohttp

from tests.support.llm_settings import ASK, passage
from tests.support.real_server import url_of
from workers.llm import Client
from workers.llm.dialects.card import gauge
from workers.ports import Ask
from workers.records import Reply

URL = "PENSTOCK_TEST_VLLM_URL"
CONTEXT_TOKENS = 16_384
"""As `tiny_hf.py` makes the model."""
MARKS = 3
"""The first tokens of its vocabulary are no text."""
PATIENT_S = 300.0
"""For calls that shall not time out on a loaded machine without a GPU."""


def vllm_url() -> str:
    """Return the server's root, or skip."""
    return url_of("vLLM", "vllm", URL)


def patient(dialect: str = "vllm", **changes: object) -> dict[str, object]:
    """Return settings of a client that waits long enough."""
    return {"dialect": dialect, "timeout_s": PATIENT_S, "connect_timeout_s": 10.0, **changes}


async def asked(client: Client, what: Ask = ASK, text: str = "a ticket") -> Reply:
    """Ask something once, with time enough."""
    return await client.complete(client.frame(what).around(text), passage(PATIENT_S), wait_s=0)


async def busy(client: Client) -> int:
    """Return how many requests the server has, at work or waiting."""
    card = await client.card()
    return (card.running or 0) + (card.waiting or 0)


async def written_tokens(url: str) -> int:
    """Return how many tokens the server has written since it started, for everybody."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        return gauge({"/metrics": await answer.read()}, "vllm:generation_tokens_total") or 0


async def marks_in(url: str, messages: list[dict[str, str]]) -> int:
    """Return how many tokens of a conversation are no text, as the server reads it."""
    body = {"model": "tiny", "messages": messages, "add_generation_prompt": True}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/tokenize", json=body) as answer:
        return sum(token < MARKS for token in json.loads(await answer.read())["tokens"])


async def echoed(url: str, request_id: str) -> str | None:
    """Return the id with which the server answers a request that has this one."""
    headers = {"X-Request-Id": request_id}
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models", headers=headers) as answer:
        return answer.headers.get("X-Request-Id")
