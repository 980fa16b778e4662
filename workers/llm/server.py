"""One request and what came of it: transport, key and dialect of a model's servers. Decides nothing about calls."""

import contextlib
from collections.abc import Mapping

import structlog
from aiohttp.abc import AbstractResolver
from pydantic import SecretStr

from workers.clock import monotonic_s
from workers.errors import BadEnvelope, NoAnswer, WrongModel
from workers.llm.dialects import Card, Completion, dialect_of
from workers.llm.lean import LeanTransport
from workers.llm.scrub import quote
from workers.llm.status import error_for, words_of
from workers.llm.transport import Target, Transport, target
from workers.ports import Ask, Frame
from workers.settings.checks.secrets import fits_header
from workers.settings.secret_file import reread
from workers.settings.servers import ModelSettings

_log = structlog.get_logger("penstock.llm")

_OK = 200
_KEY_REFUSED = (401, 403)


class Server:
    """All servers of one model: they are asked in the same way, with the same key."""

    def __init__(self, name: str, settings: ModelSettings, resolver: AbstractResolver | None = None) -> None:
        self._name = name
        self._settings = settings
        self._dialect = dialect_of(settings)
        self._key = settings.api_key
        lean = settings.http_client == "lean"
        self._transport: Transport | LeanTransport = (LeanTransport if lean else Transport)(settings, resolver)

    async def start(self) -> None:
        """Make the connection pools; connects nowhere.

        Raises:
            Exit: 78, `ca_file` cannot be read.
        """
        await self._transport.start()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    def target(self, url: str) -> Target:
        """Return where requests to a server go."""
        return target(url, self._dialect.path)

    def frame(self, ask: Ask) -> Frame:
        """Return the body of a request; its hole takes the user's text as a JSON string, quotes included."""
        return self._dialect.frame(self._settings.model, ask)

    async def ask(self, to: Target, body: bytes, timeout_s: float, *, records: int = 1) -> Completion:
        """Return what the model says to a request that asks for `records` answers.

        Raises:
            NoAnswer: the class says what the answer is instead, and whether it is retryable.
        """
        key, began_s = self._key, monotonic_s()
        answer = await self._transport.post(to, body, timeout_s)
        if answer[0] in _KEY_REFUSED and key is not None and self._renewed(key):  # a newer one: rotated while we ran
            left_s = timeout_s - (monotonic_s() - began_s)
            if left_s > 0:
                answer = await self._transport.post(to, body, left_s)
        return self._read(to, *answer, records)

    async def probe(self, to: Target, body: bytes) -> Completion:
        """Ask with a prompt of ours: as `ask`, but an error also quotes what the server said."""
        status, headers, answer = await self._transport.post(to, body, self._settings.timeout_s)
        try:
            return self._read(to, status, headers, answer)
        except NoAnswer as error:
            secret = self._key.get_secret_value() if self._key is not None else None
            if status != _OK and (words := words_of(answer, secret)):
                raise type(error)(f"{error}; it says: {words}") from error
            raise

    async def card(self, to: Target) -> Card:
        """Return what a server says of itself. Never fails: what does not answer says nothing."""
        said: dict[str, bytes] = {}
        for path in self._dialect.about:
            with contextlib.suppress(NoAnswer):
                body = await self._transport.get(to, path, self._settings.timeout_s)
                if body is not None:
                    said[path] = body
        return self._dialect.card(self._settings.model, said)

    def _renewed(self, refused: SecretStr) -> bool:
        """Return whether the key is another than the refused one by now, reading its file again if need be."""
        if self._key is refused:
            fresh = reread(refused)
            if fresh is refused or not fits_header(fresh):
                return False
            self._key = fresh
            self._transport.authorize(fresh)
            _log.info("api_key_read_again", model=self._name)
        return True

    def _read(self, to: Target, status: int, headers: Mapping[str, str], body: bytes, records: int = 1) -> Completion:
        """Return the completion, or raise what the answer is instead."""
        if status != _OK:
            raise error_for(status, headers, body, to.label, self._dialect.table)
        kind = headers.get("Content-Type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise BadEnvelope(f"200 from {to.label} is {quote(kind) or 'untyped'}: a login page, or no model server")
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise BadEnvelope(f"200 from {to.label} is compressed, and was asked not to be")
        try:
            said = self._dialect.read(body)
        except BadEnvelope as error:
            raise BadEnvelope(f"{to.label}: {error}") from error.__cause__
        if (len(said.members) or 1) != records:
            raise BadEnvelope(f"{to.label} gave {len(said.members) or 1} answers to {records} prompts")
        if self._settings.strict_model and said.model != self._settings.model:
            raise WrongModel(f"{to.label} ran {quote(said.model) or 'a model without a name'}, and strict_model is set")
        return said
