"""`ladder`: what answers when the model does not."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from workers.settings.types import Count, FilePath, Strict


class ModelRung(Strict):
    """Another model: smaller, larger, or somewhere else."""

    model: str = Field(description="a name under `models`", examples=["large"])


class PythonRules(Strict):
    """A Python callable by import path: trusted code of yours, run inline."""

    python: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="module:function", examples=["my_rules:classify"]
    )


class RulesRung(Strict):
    """Declarative rules from a YAML file, or a Python callable."""

    rules: Annotated[
        Annotated[FilePath, Tag("file")] | Annotated[PythonRules, Tag("python")],
        Discriminator(lambda value: "python" if isinstance(value, (dict, PythonRules)) else "file"),
    ] = Field(
        description="a file of rules, or a callable", examples=["rules/triage.yaml", {"python": "my_rules:classify"}]
    )


class ReviewLimit(Strict):
    """How many records a person can look at."""

    max_per_hour: Count = Field(default=500, description="past it the next rung answers")


class ReviewRung(Strict):
    """Flag for human review: a copy on the review topic."""

    review: ReviewLimit = Field(description="the next rung answers past its limit")


class SkipRung(Strict):
    """Pass the input on, without enrichment."""

    skip: dict[str, None] = Field(default={}, max_length=0, description="enrichment is null")


class DefaultRung(Strict):
    """A fixed enrichment: an object for answers by schema, a string for text."""

    default: Annotated[
        Annotated[dict[str, Any], Tag("object")] | Annotated[str, Tag("text")],
        Discriminator(lambda value: "object" if isinstance(value, dict) else "text"),
    ] = Field(description="the enrichment itself", examples=[{"category": "other", "urgency": "normal"}])


RUNG_NAMES = ("model", "rules", "review", "skip", "default")


def _rung_tag(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((name for name in RUNG_NAMES if name in value), None)
    return next((name for name in RUNG_NAMES if hasattr(value, name)), None)


def _rung_in_full(value: Any) -> Any:
    """`- skip`, `- skip:`, `- review` and `- review:` are short for the rung with its defaults."""
    if value in ("skip", "review"):
        return {value: {}}
    return {name: {} for name in value} if value in ({"skip": None}, {"review": None}) else value


_AnyRung = Annotated[
    Annotated[ModelRung, Tag("model")]
    | Annotated[RulesRung, Tag("rules")]
    | Annotated[ReviewRung, Tag("review")]
    | Annotated[SkipRung, Tag("skip")]
    | Annotated[DefaultRung, Tag("default")],
    Discriminator(
        _rung_tag, custom_error_type="rung", custom_error_message="must be one of model, rules, review, skip, default"
    ),
]
RungSettings = Annotated[
    _AnyRung, BeforeValidator(_rung_in_full, json_schema_input_type=_AnyRung | Literal["skip", "review"])
]
