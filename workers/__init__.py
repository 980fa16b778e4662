"""Penstock: a Kafka worker that carries a topic through a small language model and loses nothing.

Start reading in `workers/pipeline.py`; `workers/README.md` is the map.
"""
