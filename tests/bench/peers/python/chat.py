"""What the Python peers share: the contract's variables, and a chat call that is repeated until it has an answer."""

import asyncio
import os

import aiohttp
import orjson

ENV = os.environ
BOOTSTRAP, URL, GROUP = ENV["BOOTSTRAP"], ENV["URL"], ENV["GROUP"]
TOPIC_IN, TOPIC_OUT = ENV["TOPIC_IN"], ENV["TOPIC_OUT"]
SLOTS, MODEL, MAX_TOKENS = int(ENV["N"]), ENV["MODEL"], int(ENV["MAX_TOKENS"])
TIMEOUT_S, INSTANCE = float(ENV["TIMEOUT_S"]), ENV.get("INSTANCE") or None
RETRY_S = 0.5


def session() -> aiohttp.ClientSession:
    """Return a client with a connection per slot."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=SLOTS),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        headers={"Content-Type": "application/json"},
    )


def question(text: str) -> bytes:
    """Return a request's body."""
    spoken = [{"role": "user", "content": text}]
    return orjson.dumps({"model": MODEL, "max_tokens": MAX_TOKENS, "messages": spoken})


def answer(body: bytes) -> str:
    """Return the model's text from a response's body."""
    text: str = orjson.loads(body)["choices"][0]["message"]["content"]
    return text


async def enriched(client: aiohttp.ClientSession, value: bytes) -> bytes:
    """Return the output for an input, however long it takes."""
    record = orjson.loads(value)
    body = question(record["text"])
    while True:
        try:
            async with client.post(URL, data=body) as response:
                if response.status == 200:
                    return orjson.dumps({"id": record["id"], "result": answer(await response.read())})
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(RETRY_S)
