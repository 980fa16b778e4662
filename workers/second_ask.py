"""The second ask: what a record that got a bad answer may still ask the same model, once. Plain decisions."""

from workers.errors import AnswerCut, AnswerNotJson, AnswerOffSchema, AnswerTooLong, BadAnswer
from workers.records import Prompt, Reply
from workers.task import Task

_CORRECTION = (
    "\n\nYour last answer to this could not be used: {wrong}.\n"
    "Answer again, with {form} and nothing else: no explanation, no code fence."
)

_RUNAWAY_BLANKS = 32
"""More than any indentation of an answer: the model writes blanks, and would go on to do so."""

_WORTH_IT = (AnswerNotJson, AnswerOffSchema, AnswerTooLong)
"""A refusal stays one, and from an empty answer there is nothing to learn."""


def second_ask(prompt: Prompt, error: BadAnswer, reply: Reply, task: Task) -> tuple[str, Prompt] | None:
    """Return how to ask once more, and with what; None when there is nothing to be gained, or no budget for it.

    - Cut by `max_tokens`: the same with twice as many. Not when the model was writing blanks: a grammar allows them
      between tokens, and a small model can fill any budget with them (servers.md, vLLM).
    - No JSON, off the schema, too long: the same text, and below it what was wrong. The text names places and rules of
      the schema and never quotes the answer, so that no record can put words into it.

    Never the same request again: at temperature 0 it would get the same answer.
    """
    if not task.settings.answer.ask_again:
        return None
    if isinstance(error, AnswerCut):
        if task.wide_frame is None or reply.text[-_RUNAWAY_BLANKS:].isspace() or not task.second_asks.spend():
            return None
        return "larger_budget", task.wide_frame.around(prompt.text)
    if isinstance(error, _WORTH_IT) and task.second_asks.spend():
        form = "one JSON object by the schema" if task.check else "the text alone"
        return "asked_again", task.frame.around(prompt.text + _CORRECTION.format(wrong=error, form=form))
    return None
