"""A record made to fit: each part of a prompt that a task gives a budget, cut when it is over it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.inputs.counting import TokenCounter
from workers.inputs.cut import shortened
from workers.inputs.estimate import ESTIMATE
from workers.inputs.tokenizer import read_tokenizer
from workers.records import Cut
from workers.settings.inputs import InputPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Cuts the parts of a value that are over their budget."""

    parts: Mapping[str, InputPart]
    counter: TokenCounter

    def __call__(self, value: Any) -> tuple[Any, tuple[Cut, ...]]:
        """Return what the template shall see, and what was cut.

        The value itself stays as it is: where something is cut, what leads to it is copied. Only texts are cut.
        """
        cuts: list[Cut] = []
        for field, part in self.parts.items():

            def cut(found: Any, field: str = field, part: InputPart = part) -> Any:
                if not isinstance(found, str) or self.counter.fits(found, part.max_tokens):
                    return found
                kept = shortened(found, part.max_tokens, part.keep, self.counter)
                cuts.append(self._note(field, part, found, kept))
                return kept

            value = _changed(value, [] if field == "." else field.split("."), cut)
        return value, tuple(cuts)

    def _note(self, field: str, part: InputPart, text: str, kept: str) -> Cut:
        return Cut(
            field=field,
            keep=part.keep,
            kept_tokens=self.counter.count(kept),
            kept_chars=len(kept),
            of_chars=len(text),
            counted=self.counter.counted,
        )


def _changed(value: Any, steps: list[str], change: Callable[[Any], Any]) -> Any:
    """Return the value with another one at the end of the path; the same object when nothing there changes."""
    if not steps:
        return change(value)
    step, *rest = steps
    place: Any = int(step) if isinstance(value, list) and step.isdecimal() else step
    try:
        found = value[place]
    except (TypeError, LookupError):
        return value
    other = _changed(found, rest, change)
    if other is found:
        return value
    copy = value.copy()
    copy[place] = other
    return copy


def fitting(parts: Mapping[str, InputPart], tokenizer: Path | None) -> Fit | None:
    """Return what cuts a task's records, None for a task that gives no budgets.

    `tokenizer`: the file of the model that is asked first. Models below it may count otherwise, and read what was cut
    for the first.

    Raises:
        TokenizerInvalid: the file cannot be used.
    """
    if not parts:
        return None
    return Fit(parts=parts, counter=read_tokenizer(tokenizer) if tokenizer else ESTIMATE)
