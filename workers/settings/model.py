"""The configuration's shape: what a deployment may say, with its units and its defaults. Reads nothing by itself."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from workers.settings.budget import BudgetSettings
from workers.settings.inputs import FieldPath, InputPart
from workers.settings.routes import RouteSettings
from workers.settings.rungs import ModelRung, RungSettings
from workers.settings.servers import ModelSettings
from workers.settings.types import (
    Bytes,
    Count,
    FilePath,
    OptionalFile,
    OptionalSecret,
    OptionalText,
    Seconds,
    Strict,
    TopicName,
)


class Security(Strict):
    """How to reach a secured cluster. Certificate and host name are always checked."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="SASL_SSL or SSL outside a trusted network"
    )
    ca_file: OptionalFile = Field(default=None, description="CA bundle (PEM); the system's own when unset")
    cert_file: OptionalFile = Field(default=None, description="client certificate (PEM), for mutual TLS")
    key_file: OptionalFile = Field(default=None, description="client key (PEM)")
    key_password: OptionalSecret = Field(default=None, description="of an encrypted client key")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"] | None = Field(
        default=None, description="how the client proves who it is; needs a SASL_ protocol"
    )
    username: OptionalText = Field(default=None, description="for PLAIN and SCRAM")
    password: OptionalSecret = Field(
        default=None, description="for PLAIN and SCRAM", examples=["${file:/run/secrets/kafka_password}"]
    )
    oauth_token_file: OptionalFile = Field(
        default=None, description="file with a bearer token, read again at each connection"
    )
    kerberos_service_name: str = Field(default="kafka", description="for GSSAPI")
    kerberos_domain_name: OptionalText = Field(default=None, description="for GSSAPI")


HEARTBEAT_MAX_S = 0.5
"""Only a heartbeat's answer tells a member that the group rebalances: so long, at the most, the partitions of one that
left are silent before anybody asks for them, and those who are told first wait for the others."""


class Kafka(Strict):
    """The cluster, the group, and how offsets are treated."""

    bootstrap_servers: str = Field(
        min_length=1, description="host:port, comma separated", examples=["${KAFKA:localhost:9092}"]
    )
    group_id: str = Field(min_length=1, description="replicas with the same id share the work")
    group_instance_id: OptionalText = Field(default=None, description="static membership (KIP-345); unique per replica")
    client_id: str = Field(default="penstock", description="the name in the broker's logs and quotas")
    start: Literal["earliest", "latest"] = Field(default="earliest", description="where a group without offsets begins")
    on_offset_reset: Literal["fail", "earliest"] = Field(default="fail", description="when retention passed our offset")
    session_timeout_s: Seconds = Field(default=10.0, description="a replica silent for longer loses its partitions")
    commit_interval_s: Seconds = Field(default=0.2, description="how often finished offsets are committed")
    send_timeout_s: Seconds = Field(
        default=30.0, description="a send older than this makes /readyz fail; it is waited for on"
    )
    startup_timeout_s: Seconds = Field(default=120.0, description="broker unreachable for longer at start: exit 69")
    metadata_max_age_s: Seconds = Field(default=30.0, description="how soon new partitions are seen")
    security: Security = Field(default=Security(), description="TLS and SASL")

    @property
    def heartbeat_s(self) -> float:
        """The heartbeat interval: a third of the session at most (KIP-62), `HEARTBEAT_MAX_S` at most."""
        return min(HEARTBEAT_MAX_S, self.session_timeout_s / 3)


class Http(Strict):
    """Probes and metrics. Loopback unless said otherwise; port 0 takes a free one."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=9464, ge=0, le=65_535, description="0 takes a free one", examples=["${PORT:9464}"])


class Log(Strict):
    """What is logged, to stdout."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="the least that is logged")
    format: Literal["json", "console"] = Field(default="json", description="one JSON object per line, or for people")


class Worker(Strict):
    """The process."""

    max_in_flight_bytes: Bytes = Field(
        default=64 << 20, description="record bytes in flight, shared equally by the tasks"
    )
    drain_s: Seconds = Field(default=20.0, description="on SIGTERM: what running calls and sends get")
    revoke_wait_s: Seconds = Field(default=2.0, description="when partitions leave: what running calls and sends get")
    http: Http = Field(default=Http(), description="probes and metrics")
    log: Log = Field(default=Log(), description="what is logged")


class PromptFiles(Strict):
    """Two files: a fixed system text, and a Jinja template for the user's text."""

    system: FilePath = Field(description="plain text, sent as it is", examples=["prompts/triage.system.v1.txt"])
    user: FilePath = Field(
        description="Jinja template; sees record, key, headers, kafka_topic, kafka_partition, kafka_offset, "
        "kafka_timestamp_ms",
        examples=["prompts/triage.user.v1.j2"],
    )
    version: OptionalText = Field(default=None, description="in provenance; a hash of both files when unset")


class TextAnswer(Strict):
    """An answer that is plain text."""

    max_chars: Count = Field(default=4_000, description="a longer answer goes to the ladder")


class Confidence(Strict):
    """How sure the model says it is, and what is sure enough."""

    field: str = Field(default="confidence", min_length=1, description="path to a number in the answer")
    at_least: float = Field(description="below it the answer is `uncertain`: the next rung answers", examples=[0.7])


class Answer(Strict):
    """What the model must answer: by JSON Schema, or as text."""

    schema_file: OptionalFile = Field(default=None, alias="schema", description="JSON Schema (draft 2020-12)")
    text: TextAnswer | None = Field(default=None, description="plain text instead of an object")
    confidence: Confidence | None = Field(default=None, description="a threshold, for answers by schema that hold it")
    ask_again: bool = Field(
        default=True,
        description="once more after a bad answer: with twice max_tokens when it was cut, else with what was wrong",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "Answer":
        if (self.schema_file is None) == (self.text is None):
            raise ValueError("give either `schema` or `text`")
        if self.confidence is not None and self.schema_file is None:
            raise ValueError("`confidence` is a field of an answer by `schema`")
        return self


class TopicOverrides(Strict):
    """Names for the output topics; each defaults to `<input>.<task>.<kind>`."""

    enriched: TopicName | None = Field(default=None, description="what the model answered")
    fallback: TopicName | None = Field(default=None, description="what a rung of the ladder answered")
    review: TopicName | None = Field(default=None, description="copies for a person to look at")
    dlq: TopicName | None = Field(default=None, description="records that nothing could answer, as they came")
    retry: TopicName | None = Field(default=None, description="deferred records, which this task reads again")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class CacheSettings(Strict):
    """Answers kept in memory, for requests that come again."""

    max_entries: Count = Field(default=10_000, description="the oldest go first")
    max_bytes: Bytes = Field(default=64 << 20, description="memory for the answers of this task, per replica")
    ttl_s: Seconds = Field(default=3_600.0, description="an older answer is asked for again")


class TaskSettings(Strict):
    """One enrichment: from its input topics through a model to its output topics."""

    input: Annotated[
        list[TopicName],
        Field(min_length=1),
        BeforeValidator(_as_list, json_schema_input_type=TopicName | list[TopicName]),
    ] = Field(description="topic, or topics, that this task alone reads", examples=["tickets.raw"])
    topics: TopicOverrides = Field(default=TopicOverrides(), description="other names for the output topics")
    input_format: Literal["json", "text"] = Field(default="json", description="what the input's bytes are")
    shape: Literal["wrap", "merge", "only"] = Field(
        default="wrap", description="input beside enrichment, enrichment inside the input, or the enrichment alone"
    )
    merge_as: str = Field(default="enrichment", min_length=1, description="the name under which `shape: merge` adds it")
    order: Literal["key", "partition", "none"] = Field(
        default="key", description="what is worked on one after the other"
    )
    max_in_flight: Count | None = Field(
        default=None,
        description="records delivered and not finished; unset 512, or 4 x the slots of its model where that is more",
    )
    max_span: Count = Field(
        default=10_000, description="offsets between the oldest unfinished record and the newest taken"
    )
    max_input_bytes: Bytes = Field(default=256 << 10, description="a larger value becomes a dead letter, unasked")
    deadline_s: Seconds = Field(default=5.0, description="from the first model slot to the decision")
    max_age_s: Seconds | None = Field(default=None, description="from the Kafka timestamp, waiting included")
    only_when: dict[str, Any] | None = Field(
        default=None,
        description="a condition as in rules: the other records are passed on as tier `skip`, unasked",
        examples=[{"field": "body", "longer_than": 40}],
    )
    share: float = Field(
        default=1.0, gt=0, le=1, description="of the keys that see the model, by hash; the others are tier `skip`"
    )
    model: str = Field(description="a name under `models`")
    routes: list[RouteSettings] = Field(
        default=[],
        description="records for which another model is asked first: the first condition that holds decides",
        examples=[[{"when": {"field": "body", "longer_than": 8_000}, "model": "long"}]],
    )
    prompt: PromptFiles = Field(description="what the model is asked")
    inputs: dict[FieldPath, InputPart] = Field(
        default={},
        description="budgets for texts of the record, by path (`.`: all of it); a longer one is cut for the prompt",
        examples=[{"body": {"max_tokens": 1_500, "keep": "ends"}}],
    )
    answer: Answer = Field(description="what the model must answer")
    share_calls: bool = Field(
        default=False, description="identical requests that run at the same time share one call and its answer"
    )
    cache: CacheSettings | None = Field(
        default=None, description="keep good answers, and give them to identical requests", examples=[{"ttl_s": 600.0}]
    )
    budget: BudgetSettings | None = Field(
        default=None, description="what its calls may use per day", examples=[{"tokens_per_day": 5_000_000}]
    )
    when_unavailable: Literal["fallback", "hold", "defer"] = Field(
        default="fallback",
        description="while no endpoint answers: let the ladder answer, wait, or try again later (needs `order: none`)",
    )
    retry_delay_s: Seconds = Field(default=60.0, description="with `defer`: how long a record waits in the retry topic")
    max_deferrals: int = Field(
        default=3, gt=0, le=99, description="with `defer`: how often a record waits there before the ladder answers"
    )
    fallback_rate: Literal["measured", "unlimited"] = Field(
        default="measured", description="how fast records may leave down the ladder while no endpoint answers"
    )
    decode_guard: bool = Field(default=False, description="count decode failures for the guard as well")
    ladder: list[RungSettings] = Field(default=[], description="what answers when the model does not, in this order")

    def models_in_order(self) -> list[str]:
        """Return the names of the models that are asked: the first, then those of the ladder."""
        return [self.model, *(rung.model for rung in self.ladder if isinstance(rung, ModelRung))]

    @property
    def defers(self) -> bool:
        """Whether this task has a retry topic."""
        return self.when_unavailable == "defer"

    def all_models(self) -> list[str]:
        """Return the names of all models that a record may be sent to, each once."""
        return list(dict.fromkeys([*self.models_in_order(), *(route.model for route in self.routes)]))


class Settings(Strict):
    """One deployment."""

    kafka: Kafka = Field(description="the cluster and the consumer group")
    worker: Worker = Field(default=Worker(), description="the process")
    models: Annotated[dict[str, ModelSettings], Field(min_length=1)] = Field(description="model servers, by a name")
    tasks: Annotated[dict[str, TaskSettings], Field(min_length=1)] = Field(description="enrichments, by a name")
