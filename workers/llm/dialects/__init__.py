"""How each kind of server spells a request and an answer: one small file each."""

from typing import Protocol, assert_never

from workers.llm.dialects.card import Answers, Card
from workers.llm.dialects.chat import Completion
from workers.llm.dialects.completions import Completions
from workers.llm.dialects.custom import Custom
from workers.llm.dialects.llamacpp import LlamaCpp
from workers.llm.dialects.ollama import Ollama
from workers.llm.dialects.openai import OpenAI
from workers.llm.dialects.tgi import Tgi
from workers.llm.dialects.vllm import Vllm
from workers.llm.status import Row
from workers.ports import Ask, Frame
from workers.settings.servers import ModelSettings

__all__ = ["Card", "Completion", "Dialect", "dialect_of"]


class Dialect(Protocol):
    """One way of asking. Pure: it builds and reads bytes."""

    @property
    def path(self) -> str:
        """Where completions are asked for, from the server's root."""

    @property
    def about(self) -> tuple[str, ...]:
        """The paths at which the server says something of itself (GET)."""

    @property
    def table(self) -> tuple[Row, ...]:
        """What this server's errors mean (workers/llm/status.py)."""

    def frame(self, model: str, ask: Ask) -> Frame:
        """Return the body with a hole that takes the user's text as a JSON string, quotes included."""

    def card(self, model: str, said: Answers) -> Card:
        """Return what the server says of itself and of a model, from what the paths in `about` answered."""

    def read(self, body: bytes) -> Completion:
        """Return the completion in the body of a 200; raises BadEnvelope or a BadAnswer."""


def dialect_of(settings: ModelSettings) -> Dialect:  # noqa: PLR0911 - one line per dialect
    """Return how the model's server is spoken to."""
    if settings.custom is not None:
        return Custom(settings.custom)
    match settings.dialect:
        case "openai":
            return OpenAI()
        case "vllm":
            return Vllm()
        case "llamacpp":
            return LlamaCpp()
        case "tgi":
            return Tgi()
        case "ollama":
            return Ollama(settings.keep_alive)
        case "completions":
            return Completions()
        case "custom":
            raise ValueError("`dialect: custom` without `custom`")  # the settings refuse it
        case _:
            assert_never(settings.dialect)
