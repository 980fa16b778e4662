"""What a rule may ask about one field of a record: each operator turns its operand into a test, once."""

from collections.abc import Callable
from typing import Any, TypeGuard

import re2

from workers.inputs.estimate import ESTIMATE
from workers.json_text import MISSING

Test = Callable[[Any], bool]

TEXT_MAX_CHARS = 64 << 10
"""Expressions look at no more of a text than this: linear-time is not free."""

_WORD = r"[\pL\pM\pN_]"
_NOT_WORD = r"[^\pL\pM\pN_]"


class OperandInvalid(ValueError):
    """An operator cannot work with what it was given; the text says what it wants."""


def equals(operand: Any) -> Test:
    """Hold for the same JSON scalar; `true` is not 1."""
    if isinstance(operand, list | dict):
        raise OperandInvalid("wants a text, number, true, false or null")
    return in_([operand])


def in_(operand: Any) -> Test:
    """Hold for one of several JSON scalars."""
    if not isinstance(operand, list) or not operand or any(isinstance(one, list | dict) for one in operand):
        raise OperandInvalid("wants a list of texts, numbers, true, false or null")
    wanted = {(isinstance(one, bool), one) for one in operand}
    return lambda found: not isinstance(found, list | dict) and (isinstance(found, bool), found) in wanted


def exists(operand: Any) -> Test:
    """Hold when the field is there, null included; with `false`, when it is not."""
    if not isinstance(operand, bool):
        raise OperandInvalid("wants true or false")
    return lambda found: (found is not MISSING) is operand


def gt(operand: Any) -> Test:
    """Hold for numbers above the operand."""
    limit = _number(operand)
    return lambda found: _is_number(found) and found > limit


def lt(operand: Any) -> Test:
    """Hold for numbers below the operand."""
    limit = _number(operand)
    return lambda found: _is_number(found) and found < limit


def longer_than(operand: Any) -> Test:
    """Hold for texts of more than so many characters."""
    limit = _number(operand)
    return lambda found: isinstance(found, str) and len(found) > limit


def longer_than_tokens(operand: Any) -> Test:
    """Hold for texts of more than so many tokens, by the estimate: a condition knows no model."""
    limit = int(_number(operand))
    return lambda found: isinstance(found, str) and not ESTIMATE.fits(found, limit)


def contains_any(operand: Any) -> Test:
    """Hold for texts in which one of the keywords stands as a word, in any case; a blank stands for any blanks."""
    if not isinstance(operand, list) or not operand:
        raise OperandInvalid("wants a list of keywords")
    if not all(isinstance(word, str) and word.strip() for word in operand):
        raise OperandInvalid("wants keywords that are texts (quote numbers), none of them blank")
    choices = "|".join(r"\s+".join(map(re2.escape, word.split())) for word in operand)
    return _search(rf"(?:\A|{_NOT_WORD})(?:{choices})(?:{_NOT_WORD}|\z)", ignore_case=True)


def matches(operand: Any) -> Test:
    """Hold for texts that hold a match of the RE2 expression."""
    return _matches(operand, ignore_case=False)


def matches_any_case(operand: Any) -> Test:
    """Hold for texts that hold a match of the RE2 expression in any case."""
    return _matches(operand, ignore_case=True)


def _matches(operand: Any, *, ignore_case: bool) -> Test:
    if not isinstance(operand, str) or not operand:
        raise OperandInvalid("wants a regular expression")
    return _search(operand, ignore_case=ignore_case)


def _search(pattern: str, *, ignore_case: bool) -> Test:
    """Compile for RE2, whose time grows with the text's length and never with its tricks.

    Python's `re` would let one record stall the event loop past the session timeout.
    """
    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.log_errors = False  # they would go to stderr
    try:
        search = re2.compile(pattern, options).search
    except re2.error as exc:
        reason = exc.args[0].decode() if isinstance(exc.args[0], bytes) else exc.args[0]
        raise OperandInvalid(f"is no RE2 expression (no lookaround, no back-references): {reason}") from exc

    def test(found: Any) -> bool:
        # Bytes: for a str the library counts characters up to the match, which nobody asks for.
        return isinstance(found, str) and search(found[:TEXT_MAX_CHARS].encode("utf-8", "replace")) is not None

    return test


def _number(operand: Any) -> float:
    if not _is_number(operand):
        raise OperandInvalid("wants a number")
    return operand


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


OPERATORS: dict[str, Callable[[Any], Test]] = {
    "equals": equals,
    "in": in_,
    "exists": exists,
    "gt": gt,
    "lt": lt,
    "longer_than": longer_than,
    "longer_than_tokens": longer_than_tokens,
    "contains_any": contains_any,
    "matches": matches,
    "matches_any_case": matches_any_case,
}
