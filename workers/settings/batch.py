"""`batch`: several records in one request, each with a prompt of its own."""

from pydantic import Field

from workers.settings.types import Count, Seconds, Strict

CAN_BATCH = ("completions",)
"""Dialects whose server takes an array of prompts."""


class BatchSettings(Strict):
    """How many records go into one call, and how long the first of them waits for the others."""

    max_records: Count = Field(default=8, description="of one task in one call; one call takes one slot")
    linger_s: Seconds = Field(default=0.1, description="how long a record waits for others, even when slots are free")
