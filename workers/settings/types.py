"""What settings are made of: sizes, durations, files, and the strictness that they share."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo

from workers.settings.secret_file import as_secret

_SIZE_PATTERN = r"(\d{1,15})\s*(B|KiB|MiB|GiB)?"
_SIZE = re.compile(_SIZE_PATTERN)
_UNIT_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size(value: Any) -> Any:
    """Turn `64MiB`, `256 KiB` or `1024` into bytes; what is no text is left for pydantic to judge."""
    if not isinstance(value, str):
        return value
    if found := _SIZE.fullmatch(value.strip()):
        return int(found[1]) * _UNIT_BYTES[found[2]]
    raise ValueError("must be a size such as 64MiB, 256KiB or 1024")


def _empty_is_unset(value: Any) -> Any:
    return None if value == "" else value


def _in_folder(file: Path, validation: ValidationInfo) -> Path:
    """Make a relative path absolute: `source` gives the configuration file's folder as context."""
    return validation.context["folder"] / file if validation.context else file


_GO_DURATION = re.compile(r"-?(\d+(\.\d+)?(ns|us|ms|s|m|h))+")


def _keep_alive(value: Any) -> Any:
    """Ollama reads a number as seconds and a text as Go's time.ParseDuration does: there a bare number is refused."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}", value):
        value = int(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and _GO_DURATION.fullmatch(value)):
        raise ValueError("must be seconds, or a text such as 30m or 1h30m; -1 is for ever")
    return value


_SizeText = Annotated[str, Field(pattern=f"^{_SIZE_PATTERN}$")]
_PositiveInt = Annotated[int, Field(gt=0)]
Bytes = Annotated[
    _PositiveInt,
    BeforeValidator(parse_size, json_schema_input_type=_PositiveInt | _SizeText),
    Field(examples=["64MiB", "256KiB"]),
]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
KeepAlive = Annotated[int | float | str, BeforeValidator(_keep_alive)]
OptionalText = Annotated[str | None, BeforeValidator(_empty_is_unset)]
FilePath = Annotated[
    Path, Field(strict=False, description="relative to the configuration file"), AfterValidator(_in_folder)
]
OptionalFile = FilePath | None
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(as_secret), BeforeValidator(_empty_is_unset)]
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class FaultAt(ValueError):
    """What is wrong inside a value that pydantic takes as one; `at` is the way to it from there."""

    def __init__(self, at: tuple[str | int, ...], what: str) -> None:
        super().__init__(what)
        self.at = at


class Strict(BaseModel):
    """Unknown keys are errors, `"64"` is no number; values cannot change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)
