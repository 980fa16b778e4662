"""`inputs`: how much of a record a prompt may take, part by part."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from workers.settings.types import Count, Strict


def _path(written: str) -> str:
    if written != "." and not all(written.split(".")):
        raise ValueError("must be a path such as `customer.plan`, or `.` for all of the record")
    return written


FieldPath = Annotated[str, AfterValidator(_path)]
"""As in conditions: through objects and lists (`lines.0.sku`), `.` for the whole value."""


class InputPart(Strict):
    """The budget of one part, and what is kept of a text that is over it."""

    max_tokens: Count = Field(description="of the model that is asked first", examples=[1_500])
    keep: Literal["head", "tail", "ends", "sections"] = Field(
        default="ends",
        description="of a longer text: its beginning, its end, both, or key sentences, with [...] between",
    )
