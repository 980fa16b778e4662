"""Stage 2: from a request to the body of a model call."""

import re

from workers import metrics
from workers.errors import PromptFailed
from workers.prompts import explain
from workers.records import Prompt, Record, Request
from workers.task import Task

_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\n\t"))

_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
    "\u202a-\u202e\u2066-\u2069"  # bidirectional overrides and isolates: they hide what a reviewer should see
    "\U000e0000-\U000e007f"  # tags: invisible text that some models read
    "\ud800-\udfff"  # half a surrogate pair cannot be written as UTF-8
    "]"
)
"""Zero-width joiners and marks stay: Persian, Indic scripts and emoji are spelt with them."""

_MARK = re.compile(
    r"[<\[\]](?=[|\uff5c~!/A-Za-z])(?="  # nearly all other text is through here; the rest decides
    r"[|\uff5c]"  # <|: ChatML, Llama 3, Phi, GLM, Cohere, gpt-oss; <\uff5c: DeepSeek; [|: EXAONE
    r"|[a-z_]{1,20}\|>"  # <turn|>, <channel|>, <tool_call|>: how Gemma 4 closes what it opened with <|
    r"|~!?b[\[\]]|e~\[|![a-z]~\["  # ]~b], [e~[: MiniMax
    r"|/?(?:(?:[a-z]+:)?(?:"  # <seed:bos>, <minimax:tool_call>
    r"think|tool_call|tool_response|arg_key|arg_value"  # Qwen, DeepSeek, GLM
    r"|s|bos|eos|pad|unk|mask|cls|sep|sop|eop"  # begin, end, padding, gaps; `<s>` is HTML too, and can still be read
    r"|start_of_turn|end_of_turn|start_of_image|end_of_image|start_of_audio|end_of_audio"  # Gemma
    r")|img-[0-9]+"  # Ollama, of a model that sees: such an image is none of the request, which ends with a 500
    r"|SYS|INST|SYSTEM_PROMPT"  # Llama 2, Mistral
    r"|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK"  # Mistral
    r"|IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX"  # Mistral: what is no text, code to fill in
    r"|(?:BOS|EOS|EOP|PAD|UNK|CLS|SEP|MASK)(?:_TOKEN)?|gMASK|sMASK"  # Cohere, EXAONE, GLM, BERT
    r")[>\]])"
)
"""Where a token of a chat template, or of a tokenizer, would begin: these are spelt as text, and servers find them in a
user's text as well (ggml-org/llama.cpp#24382; vllm-project/vllm#31735 was not merged). Byte tokens (`<0x0A>`) are not
here: no tokenizer reads one out of a text. Tests hold it against a dozen families of models (chat_families.py)."""


def build(request: Request, task: Task) -> Prompt:
    """Return the body to send: the task's frame around the rendered text, made harmless for the prompt only.

    Where the task gives budgets (`inputs`), the template sees a copy of the record that fits; the record stays whole.

    Raises:
        PromptFailed: the template failed on this record; not retryable. Its text has no record content.
    """
    record = request.record
    value, cut = (request.value, ()) if task.fit is None else task.fit(request.value)
    for one in cut:
        metrics.INPUTS_CUT.labels(task.name, one.keep).inc()
    try:
        text = task.render(
            record=value,
            key=None if record.key is None else record.key.decode("utf-8", "replace"),
            headers=_headers(record),
            kafka_topic=record.topic,
            kafka_partition=record.partition,
            kafka_offset=record.offset,
            kafka_timestamp_ms=record.timestamp_ms,
        )
    except Exception as exc:  # the seam to the user's template, which can raise anything
        raise PromptFailed(explain(exc)) from exc
    prompt = task.frame.around(_harmless(text))
    prompt.cut = cut
    return prompt


def _headers(record: Record) -> dict[str, str]:
    """Return the headers as text, the last of a name; a null value is an empty text."""
    if not record.headers:
        return {}
    return {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}


def _harmless(text: str) -> str:
    """Remove what a person cannot see, and break what a model server would take for the end of a turn."""
    # The expressions alone would do; for ASCII the table is five times faster, and looking for a bracket thirty times.
    text = text.encode().translate(None, _CONTROLS).decode() if text.isascii() else _INVISIBLE.sub("", text)
    return _MARK.sub(_apart, text) if "<" in text or "[" in text or "]" in text else text


def _apart(begins: re.Match[str]) -> str:
    return f"{begins[0]} "
