"""Every way a record can fail, and what follows from it.

The policy of an error is in its class attributes, so that nobody else decides:

- `stage`: where it happened: decode, prompt, call, parse, route, send, internal.
- `reason`: one word of a closed set, the label in metrics, provenance and dead letters.
- `retryable`: whether the *same* request may be tried again inside the record's deadline.
- `blames_endpoint`: whether the circuit breaker counts it against the endpoint.

`endpoint` is of the instance: the URL (without userinfo) that it happened at, None when no endpoint was involved.
"""

from typing import ClassVar


class PenstockError(Exception):
    """Anything that can go wrong with one record."""

    stage: ClassVar[str] = "internal"
    reason: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    blames_endpoint: ClassVar[bool] = False
    endpoint: str | None = None


# ------------------------------------------------------------------ never again: the record becomes a dead letter


class Reject(PenstockError):
    """No attempt can ever help: the record goes to the dead-letter topic."""


class EmptyValue(Reject):
    """The value has no bytes (a null value is a tombstone, which is no error)."""

    stage, reason = "decode", "empty"


class ValueTooLarge(Reject):
    """The value is larger than the task's `max_input_bytes`."""

    stage, reason = "decode", "too_large"


class NotUtf8(Reject):
    """The value is not UTF-8."""

    stage, reason = "decode", "not_utf8"


class NotJson(Reject):
    """The value is not JSON (RFC 8259: NaN, Infinity and a byte order mark are not)."""

    stage, reason = "decode", "not_json"


class TooDeep(Reject):
    """The value nests deeper than 200: orjson reads 1,024 levels but writes only 254."""

    stage, reason = "decode", "too_deep"


class PromptFailed(Reject):
    """The task's template could not be rendered for this record."""

    stage, reason = "prompt", "template"


class MergeRefused(Reject):
    """`shape: merge` on an input that is no object, or that already has the name."""

    stage, reason = "route", "merge_refused"


class NotWritten(Reject):
    """An outgoing record that its topic will never take; `topic` says which."""

    stage, reason = "send", "not_written"

    def __init__(self, message: str, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class OutputTooLarge(NotWritten):
    """The outgoing record exceeds its topic's `max.message.bytes`; found before the send."""

    reason = "output_too_large"


class OutputRefused(NotWritten):
    """The broker refused this very record for good (too large, invalid, against a policy)."""

    reason = "output_refused"


class Internal(Reject):
    """A bug of ours; the record boundary turns it into this. The cause is for the log: it may hold record content."""

    stage, reason = "internal", "internal"


# ------------------------------------------------------------------ no usable answer: the ladder answers instead


class NoAnswer(PenstockError):
    """The model gave no usable answer to this record: the next rung of the ladder answers."""


class NotSelected(NoAnswer):
    """The task's `only_when` does not hold for this record: it is passed on, unasked."""

    stage, reason = "prompt", "only_when"


class OutOfShare(NotSelected):
    """The record's key is not in the task's `share`: it is passed on, unasked."""

    reason = "share"


class Unavailable(NoAnswer):
    """The endpoint did not answer as a working endpoint does."""

    stage, reason, retryable, blames_endpoint = "call", "unavailable", True, True
    unretried: int = 0
    """So many calls failed, and it would be tried again but for the retry budget: the record is not to blame."""


class TimedOut(Unavailable):
    """No complete answer within `timeout_s`, or within what was left of the record's deadline."""

    reason = "timeout"


class ConnectFailed(Unavailable):
    """No connection: refused, unreachable, name not resolved, TLS refused."""

    reason = "connect"


class ConnectionLost(Unavailable):
    """The connection broke before the answer was whole."""

    reason = "connection_lost"


class ServerFault(Unavailable):
    """A 5xx other than 503, or another status that no working endpoint sends."""

    reason = "server_error"


class BadEnvelope(Unavailable):
    """A 200 that is no completion: not JSON, not `application/json`, fields missing, empty body."""

    reason = "bad_envelope"


class AnswerTooLarge(Unavailable):
    """The response body exceeds `max_response_bytes`; the connection was closed."""

    reason = "response_too_large"


class MixedUp(Unavailable):
    """The answer to another request, as its id says: a proxy confuses them. What it holds is never looked at."""

    reason = "mixed_up"


class Busy(Unavailable):
    """429: the endpoint works but has no room. Cools it down; does not count for its breaker."""

    reason, blames_endpoint = "busy", False

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Busy):
    """503: busy, loading or broken, nobody can tell. Cools the endpoint down and counts for its breaker."""

    reason, blames_endpoint = "overloaded", True


class BreakerOpen(Unavailable):
    """Not asked: the endpoint's breaker is open."""

    reason, retryable, blames_endpoint = "breaker_open", False, False


class Misconfigured(Unavailable):
    """The endpoint refuses every request of this kind (401, 403, 404, 3xx): a person must act.

    Always holds the task, whatever `when_unavailable` says; opens the breaker at once.
    """

    reason, retryable, blames_endpoint = "misconfigured", False, True


class WrongModel(Misconfigured):
    """`strict_model`, and the server says that another model answered: its answers must not pass for this one's."""

    reason = "wrong_model"


class QuotaSpent(Unavailable):
    """402, or 429 `insufficient_quota`: the account behind the key is empty. Waiting is no cure, a person has to pay.

    Opens the breaker at once, and from then on is an outage: the next endpoint, the next model, `when_unavailable`. It
    does not hold as `Misconfigured` does: what ran well yesterday is no bad deployment.
    """

    reason = "quota_spent"


class Stale(NoAnswer):
    """Older than the task's `max_age_s` (from the Kafka timestamp) before it could be answered."""

    stage, reason = "call", "max_age"


class DeadlineOver(NoAnswer):
    """The record's `deadline_s` ended between two attempts."""

    stage, reason = "call", "deadline"


class BudgetSpent(NoAnswer):
    """Not asked: the task's budget for today is spent, and this model would cost some of it."""

    stage, reason = "call", "budget"


class Declined(NoAnswer):
    """400, 413, 422: the endpoint works and refuses this very request. Never the same request again."""

    stage, reason = "call", "request_refused"


class ContextExceeded(Declined):
    """The prompt does not fit the model's context."""

    reason = "context_exceeded"


class BadAnswer(NoAnswer):
    """The model answered, and the answer is of no use. Keeps what it said, capped, for the ladder's reason.

    The tokens are those that a dialect has read beside an answer that is none, 0 where the server gives none. `shared`:
    it came from another record's call, which pays for it.
    """

    stage, reason = "parse", "answer_invalid"
    shared: bool = False

    def __init__(self, message: str, raw: str = "", tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.raw = raw[:RAW_ANSWER_MAX_CHARS]
        self.input_tokens, self.output_tokens = tokens


RAW_ANSWER_MAX_CHARS = 2_048


class AnswerNotJson(BadAnswer):
    """No JSON object in it: not direct, not fenced, not the first balanced object."""

    reason = "answer_not_json"


class AnswerOffSchema(BadAnswer):
    """JSON that the task's answer schema refuses."""

    reason = "answer_off_schema"


class AnswerTooLong(BadAnswer):
    """A text answer longer than `answer.text.max_chars`."""

    reason = "answer_too_long"


class AnswerCut(BadAnswer):
    """`finish_reason: length`, and what came does not satisfy the schema."""

    reason = "answer_cut"


class AnswerUncertain(BadAnswer):
    """It passed its check, and says itself that it is less sure than the task's `answer.confidence` wants."""

    reason = "uncertain"


class AnswerEmpty(BadAnswer):
    """No choices, null content or blanks only."""

    reason = "answer_empty"


class AnswerRefused(BadAnswer):
    """The model refused (`message.refusal`, `finish_reason: content_filter`)."""

    reason = "answer_refused"


# ------------------------------------------------------------------ the task or the worker stops, the record stays


class Paused(PenstockError):
    """The guard paused the task: this reject is neither produced nor acked."""

    reason = "guard"


class Unwritable(PenstockError):
    """Neither the record nor a stub of it can be written anywhere: held, never acked."""

    stage, reason = "send", "unwritable"


class Exit(Exception):
    """The process has to end with this code: 78 configuration, 69 broker unreachable, 70 internal."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


EX_UNAVAILABLE = 69  # sysexits.h
EX_SOFTWARE = 70
EX_CONFIG = 78
