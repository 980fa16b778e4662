"""Talking to a model server. Knows nothing of Kafka."""

from workers.llm.client import Client

__all__ = ["Client"]
