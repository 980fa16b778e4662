"""Talking to a model server. Knows nothing of Kafka."""

from workers.llm.client import Client
from workers.llm.dialects import Card

__all__ = ["Card", "Client"]
