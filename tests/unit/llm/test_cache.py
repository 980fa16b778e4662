"""Answers kept for a while: what is kept, how much of it, and what it looks like when it comes back."""

import asyncio

from tests.support.scripted_model import ScriptedModel
from workers.llm.cache import Cached, keep_answer
from workers.records import Passage, Prompt, Reply
from workers.settings.model import CacheSettings


async def ask(cached: Cached, body: bytes = b"{}") -> Reply:
    """Ask once."""
    return await cached.complete(Prompt(body), Passage(10.0), wait_s=0.0)


async def ask_and_keep(cached: Cached, body: bytes = b"{}") -> Reply:
    """Ask once, and find the answer good."""
    reply = await ask(cached, body)
    keep_answer(cached, Prompt(body), reply)
    return reply


async def test_a_kept_answer_comes_back_without_a_call() -> None:
    """It says so, and costs neither attempt nor tokens; what was done to the first one is not its own."""
    model = ScriptedModel("yes")
    cached = Cached(model, CacheSettings())
    first = await ask_and_keep(cached)
    first.repairs = ("fenced",)
    again = await ask_and_keep(cached)
    assert len(model.calls) == 1
    assert (first.cached, again.cached, again.text) == (False, True, "yes")
    assert (again.attempts, again.input_tokens, again.output_tokens, again.repairs) == (0, 0, 0, ())


async def test_only_what_was_found_good_is_kept() -> None:
    """An answer that nobody vouched for is asked for again, and so is another body."""
    model = ScriptedModel()
    cached = Cached(model, CacheSettings())
    await ask(cached)
    await ask_and_keep(cached)
    await ask(cached, b"[]")
    assert len(model.calls) == 3


async def test_entries_and_bytes_are_bounded() -> None:
    """The oldest goes first; an answer larger than the cache is not kept, and throws nothing out."""
    few = Cached(ScriptedModel(), CacheSettings(max_entries=2))
    for body in (b"1", b"2", b"3"):
        await ask_and_keep(few, body)
    assert [(await ask(few, body)).cached for body in (b"1", b"2", b"3")] == [False, True, True]
    small = Cached(ScriptedModel("{}", "x" * 10_000), CacheSettings(max_bytes=4_096))
    for body in (b"1", b"2"):
        await ask_and_keep(small, body)
    assert [(await ask(small, body)).cached for body in (b"1", b"2")] == [True, False]
    for number in range(20):
        await ask_and_keep(small, b"n%d" % number)
    assert small._kept.currsize <= 4_096


async def test_a_kept_answer_does_not_grow_younger_by_being_asked_for() -> None:
    """An answer that is given every second would otherwise stay for ever, whatever `ttl_s` says."""
    cached = Cached(ScriptedModel("first", "second"), CacheSettings(ttl_s=0.4))
    await ask_and_keep(cached)
    ends_at_s = asyncio.get_running_loop().time() + 10
    while (await ask_and_keep(cached)).text == "first":
        assert asyncio.get_running_loop().time() < ends_at_s
        await asyncio.sleep(0.02)


async def test_an_old_answer_is_asked_for_again() -> None:
    """After `ttl_s` it is forgotten, and counted as expired."""
    model = ScriptedModel()
    cached = Cached(model, CacheSettings(ttl_s=0.02))
    before = cached._expired._value.get()
    await ask_and_keep(cached)
    await asyncio.sleep(0.05)
    assert not (await ask(cached)).cached
    assert len(model.calls) == 2
    assert cached._expired._value.get() == before + 1


async def test_a_model_without_a_cache_keeps_nothing() -> None:
    """The pipeline need not know which model it has."""
    model = ScriptedModel()
    keep_answer(model, Prompt(b"{}"), await model.complete(Prompt(b"{}"), Passage(1.0), wait_s=0.0))
