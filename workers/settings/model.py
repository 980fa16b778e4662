"""The configuration's shape: what a deployment may say, with its units and its defaults. Reads nothing by itself."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, SecretStr, Tag, model_validator

_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
_UNIT_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size(value: Any) -> Any:
    """Turn `64MiB`, `256 KiB` or `1024` into bytes; anything else is left for pydantic to refuse."""
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        return int(found[1]) * _UNIT_BYTES[found[2]]
    return value


def _empty_is_unset(value: Any) -> Any:
    return None if value == "" else value


Bytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0, json_schema_extra={"examples": ["64MiB", "256KiB"]})]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
OptionalText = Annotated[str | None, BeforeValidator(_empty_is_unset)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_empty_is_unset)]
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Strict(BaseModel):
    """Unknown keys are errors; values cannot change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Security(Strict):
    """How to reach a secured cluster. Certificate and host name are always checked."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: Path | None = Field(None, description="CA bundle (PEM); the system's own when unset")
    cert_file: Path | None = Field(None, description="client certificate (PEM), for mutual TLS")
    key_file: Path | None = Field(None, description="client key (PEM)")
    key_password: OptionalSecret = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"] | None = None
    username: OptionalText = None
    password: OptionalSecret = None
    oauth_token_file: Path | None = Field(None, description="file with a bearer token, read again at each connection")
    kerberos_service_name: str = "kafka"
    kerberos_domain_name: OptionalText = None


class Kafka(Strict):
    """The cluster, the group, and how offsets are treated."""

    bootstrap_servers: str = Field(min_length=1, description="host:port, comma separated")
    group_id: str = Field(min_length=1)
    group_instance_id: OptionalText = Field(None, description="static membership (KIP-345); unique per replica")
    client_id: str = "penstock"
    start: Literal["earliest", "latest"] = Field("earliest", description="where a group without offsets begins")
    on_offset_reset: Literal["fail", "earliest"] = Field("fail", description="when retention passed our offset")
    session_timeout_s: Seconds = 10.0
    commit_interval_s: Seconds = 0.2
    send_timeout_s: Seconds = Field(30.0, description="a send older than this makes /readyz fail; it is waited for on")
    startup_timeout_s: Seconds = Field(120.0, description="broker unreachable for longer at start: exit 69")
    metadata_max_age_s: Seconds = Field(30.0, description="how soon new partitions are seen")
    security: Security = Security()


class Http(Strict):
    """Probes and metrics. Loopback unless said otherwise; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = Field(9464, ge=0, le=65_535)


class Log(Strict):
    """What is logged, to stdout."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Worker(Strict):
    """The process."""

    max_in_flight_bytes: Bytes = Field(64 << 20, description="record bytes in flight, shared equally by the tasks")
    drain_s: Seconds = Field(20.0, description="on SIGTERM: what running calls and sends get")
    revoke_wait_s: Seconds = Field(2.0, description="when partitions leave: what running calls and sends get")
    http: Http = Http()
    log: Log = Log()


class Breaker(Strict):
    """When an endpoint is no longer asked. Defaults: measured not to open falsely with a 10 % tail."""

    reset_timeout_s: Seconds = Field(1.0, description="pause before one trial call")
    failure_ratio: float = Field(0.5, gt=0, le=1)
    min_calls: Count = 20
    window_s: Seconds = 10.0
    connect_failures: Count = Field(5, description="connection failures in a row that open it at once")


class EndpointSettings(Strict):
    """One URL."""

    url: str
    max_in_flight: Count = Field(64, description="slots: calls running at the same time")


class ModelSettings(Strict):
    """A model, as one or several endpoints serve it. `url` directly on the model is short for one endpoint."""

    dialect: Literal["openai", "vllm"] = "openai"
    model: str = Field(min_length=1, description="the name the server knows it by")
    url: str | None = Field(None, description="short for one endpoint")
    max_in_flight: Count | None = None
    endpoints: list[EndpointSettings] = []
    timeout_s: Seconds = Field(1.0, description="one call, connection included")
    connect_timeout_s: Seconds = 0.5
    max_attempts: Count = 3
    max_tokens: Count = 256
    temperature: float = Field(0.0, ge=0, le=2)
    api_key: OptionalSecret = None
    ca_file: Path | None = Field(None, description="CA bundle (PEM) for https; the system's own when unset")
    max_response_bytes: Bytes = 1 << 20
    breaker: Breaker = Breaker()

    @model_validator(mode="after")
    def _one_way_to_name_endpoints(self) -> "ModelSettings":
        if (self.url is None) == (not self.endpoints):
            raise ValueError("give either `url` or `endpoints`")
        if self.endpoints and self.max_in_flight is not None:
            raise ValueError("`max_in_flight` belongs on each endpoint when `endpoints` is used")
        return self

    def all_endpoints(self) -> list[EndpointSettings]:
        """Return the endpoints, however they were written."""
        if self.url is None:
            return self.endpoints
        return [EndpointSettings(url=self.url, max_in_flight=self.max_in_flight or 64)]


class PromptFiles(Strict):
    """Two files: a fixed system text, and a Jinja template for the user's text."""

    system: Path
    user: Path
    version: OptionalText = Field(None, description="in provenance; a hash of both files when unset")


class TextAnswer(Strict):
    """An answer that is plain text."""

    max_chars: Count = 4_000


class Answer(Strict):
    """What the model must answer: by JSON Schema, or as text."""

    schema_file: Path | None = Field(None, alias="schema", description="JSON Schema (draft 2020-12)")
    text: TextAnswer | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Answer":
        if (self.schema_file is None) == (self.text is None):
            raise ValueError("give either `schema` or `text`")
        return self


class PythonRules(Strict):
    """A Python callable by import path: trusted code of yours, run inline."""

    python: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", examples=["my_rules:classify"])


class RulesRung(Strict):
    """Declarative rules from a YAML file, or a Python callable."""

    rules: Path | PythonRules


class ReviewLimit(Strict):
    """How many records a person can look at."""

    max_per_hour: Count = 500


class ReviewRung(Strict):
    """Flag for human review: a copy on the review topic."""

    review: ReviewLimit


class SkipRung(Strict):
    """Pass the input on, without enrichment."""

    skip: dict[str, None] = Field(default={}, max_length=0)


class DefaultRung(Strict):
    """A fixed enrichment: an object for answers by schema, a string for text."""

    default: dict[str, Any] | str


RUNG_NAMES = ("rules", "review", "skip", "default")


def _rung_tag(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((name for name in RUNG_NAMES if name in value), None)
    return next((name for name in RUNG_NAMES if hasattr(value, name)), None)


def _rung_in_full(value: Any) -> Any:
    """`- skip` and `- review` are short for the rung with its defaults."""
    return {value: {}} if value in ("skip", "review") else value


RungSettings = Annotated[
    Annotated[RulesRung, Tag("rules")]
    | Annotated[ReviewRung, Tag("review")]
    | Annotated[SkipRung, Tag("skip")]
    | Annotated[DefaultRung, Tag("default")],
    Discriminator(
        _rung_tag, custom_error_type="rung", custom_error_message="a rung is one of rules, review, skip, default"
    ),
    BeforeValidator(_rung_in_full),
]


class TopicOverrides(Strict):
    """Names for the output topics; each defaults to `<input>.<task>.<kind>`."""

    enriched: TopicName | None = None
    fallback: TopicName | None = None
    review: TopicName | None = None
    dlq: TopicName | None = None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class TaskSettings(Strict):
    """One enrichment: from its input topics through a model to its output topics."""

    input: Annotated[list[TopicName], BeforeValidator(_as_list), Field(min_length=1)]
    topics: TopicOverrides = TopicOverrides()
    input_format: Literal["json", "text"] = "json"
    shape: Literal["wrap", "merge", "only"] = "wrap"
    merge_as: str = Field("enrichment", min_length=1, description="the name under which `shape: merge` adds it")
    order: Literal["key", "partition", "none"] = "key"
    max_in_flight: Count = Field(512, description="records delivered and not finished")
    max_span: Count = Field(10_000, description="offsets between the oldest unfinished record and the newest taken")
    max_input_bytes: Bytes = 256 << 10
    deadline_s: Seconds = Field(5.0, description="from the first model slot to the decision")
    max_age_s: Seconds | None = Field(None, description="from the Kafka timestamp, waiting included")
    model: str
    prompt: PromptFiles
    answer: Answer
    when_unavailable: Literal["fallback", "hold"] = "fallback"
    fallback_rate: Literal["measured", "unlimited"] = "measured"
    decode_guard: bool = Field(default=False, description="count decode failures for the guard as well")
    ladder: list[RungSettings] = []


class Settings(Strict):
    """One deployment."""

    kafka: Kafka
    worker: Worker = Worker()
    models: Annotated[dict[str, ModelSettings], Field(min_length=1)]
    tasks: Annotated[dict[str, TaskSettings], Field(min_length=1)]
