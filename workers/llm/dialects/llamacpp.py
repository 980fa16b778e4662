"""llama.cpp's llama-server: OpenAI's route, whose `response_format` it enforces with a grammar."""

from workers.llm.dialects.openai import OpenAI


class LlamaCpp(OpenAI):
    """As OpenAI. It answers to any model name, and says 503 "Loading model" until it can answer."""
