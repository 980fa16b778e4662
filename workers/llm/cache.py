"""Answers kept for a while: a request that is asked again, byte for byte, is answered without a call."""

from dataclasses import replace
from hashlib import sha256

from cachetools import TTLCache

from workers import metrics
from workers.llm.before import Before
from workers.ports import Model
from workers.records import Passage, Prompt, Reply
from workers.settings.model import CacheSettings

_ENTRY_BYTES = 1_024
"""What an entry takes beside its text: key, reply, the cache's own links; rounded up."""


class Cached(Before):
    """A `Model` (workers.ports) before another, with a memory of good answers. One per task, in this process alone.

    The key is the SHA-256 of the body, which holds model name, parameters, schema and prompts; task, dialect and
    endpoints are those of the model behind. Nothing is kept until `keep_answer`: only answers that passed the parse.
    """

    def __init__(self, model: Model, settings: CacheSettings) -> None:
        super().__init__(model)
        self._settings = settings
        self._kept: TTLCache[bytes, Reply] = TTLCache(settings.max_bytes, settings.ttl_s, getsizeof=_size_bytes)
        self._hits, self._misses, self._expired = (
            metrics.CACHE_LOOKUPS.labels(self.name, result) for result in ("hit", "miss", "expired")
        )

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return the kept answer, or ask. A kept one costs no tokens and no attempt, and begins no deadline."""
        key = _key(prompt)
        self._expire(key)
        kept = self._kept.get(key)
        if kept is None:
            self._misses.inc()
            return await self._model.complete(prompt, passage, wait_s=wait_s)
        self._hits.inc()
        return replace(kept, cached=True, attempts=passage.attempts, latency_s=0.0, input_tokens=0, output_tokens=0)

    def keep(self, prompt: Prompt, reply: Reply) -> None:
        """Keep an answer that has passed all checks. One too large for the cache is not kept; the oldest go first."""
        if reply.cached or _size_bytes(reply) > self._settings.max_bytes:
            return
        while len(self._kept) >= self._settings.max_entries:
            self._kept.popitem()
        self._kept[_key(prompt)] = replace(reply, shared=False, batch=0, repairs=(), passed_by=())

    def keeps(self, prompt: Prompt) -> bool:
        """Return whether an answer to it is kept; counts nothing."""
        return _key(prompt) in self._kept

    def _expire(self, key: bytes) -> None:
        """Forget what is too old. A lookup that finds its own answer too old counts as `expired`, and as a miss."""
        for old, _ in self._kept.expire():
            if old == key:
                self._expired.inc()


def keep_answer(model: Model, prompt: Prompt, reply: Reply) -> None:
    """Keep a checked answer, where the model has a cache."""
    if isinstance(model, Cached):
        model.keep(prompt, reply)


def is_kept(model: Model, prompt: Prompt) -> bool:
    """Return whether the model would answer this from its cache, without a call."""
    return isinstance(model, Cached) and model.keeps(prompt)


def _key(prompt: Prompt) -> bytes:
    return sha256(prompt.body).digest()


def _size_bytes(reply: Reply) -> int:
    """Four bytes a character are the most that Python needs."""
    return _ENTRY_BYTES + 4 * len(reply.text)
