"""`routes`: which model is asked first, by what the record says."""

from typing import Any

from pydantic import Field

from workers.settings.types import Strict


class RouteSettings(Strict):
    """Records of one kind, and the model for them."""

    when: dict[str, Any] = Field(
        description="a condition as in rules", examples=[{"field": "body", "longer_than": 8_000}]
    )
    model: str = Field(description="a name under `models`: asked first, then the models of the ladder")
