"""Talking to a model server. Knows nothing of Kafka."""
