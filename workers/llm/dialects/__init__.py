"""How each kind of server spells a request and an answer: one small file each."""

from typing import ClassVar, Protocol

from workers.llm.dialects.chat import Completion
from workers.llm.dialects.llamacpp import LlamaCpp
from workers.llm.dialects.ollama import Ollama
from workers.llm.dialects.openai import OpenAI
from workers.llm.dialects.tgi import Tgi
from workers.llm.dialects.vllm import Vllm
from workers.ports import Ask, Frame

__all__ = ["DIALECTS", "Completion", "Dialect"]


class Dialect(Protocol):
    """One way of asking. Pure: it builds and reads bytes."""

    path: ClassVar[str]
    """Where completions are asked for, from the server's root."""

    def frame(self, model: str, ask: Ask) -> Frame:
        """Return the body with a hole that takes the user's text as a JSON string, quotes included."""

    def read(self, body: bytes) -> Completion:
        """Return the completion in the body of a 200; raises BadEnvelope, AnswerEmpty or AnswerRefused."""


DIALECTS: dict[str, Dialect] = {
    "openai": OpenAI(),
    "vllm": Vllm(),
    "llamacpp": LlamaCpp(),
    "tgi": Tgi(),
    "ollama": Ollama(),
}
"""By the name that the configuration uses."""
