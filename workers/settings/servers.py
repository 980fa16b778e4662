"""`models`: a model, the endpoints that serve it, and when they are no longer asked."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from workers.settings.batch import CAN_BATCH, BatchSettings
from workers.settings.budget import Price
from workers.settings.custom import CustomSettings
from workers.settings.types import (
    Bytes,
    Count,
    FaultAt,
    KeepAlive,
    OptionalFile,
    OptionalSecret,
    Seconds,
    Strict,
)


class Breaker(Strict):
    """When an endpoint is no longer asked. Defaults: measured not to open falsely with a 10 % tail."""

    reset_timeout_s: Seconds = Field(default=1.0, description="pause before one trial call")
    failure_ratio: float = Field(
        default=0.5, gt=0, le=1, description="share of failed calls in the window that opens it"
    )
    min_calls: Count = Field(
        default=20,
        description="fewer calls in the window decide nothing; that share of them in a row (10 at least) opens it",
    )
    window_s: Seconds = Field(default=10.0, description="how far back calls count")
    connect_failures: Count = Field(default=5, description="connection failures in a row that open it at once")


AUTO_MAX = 1_024
"""Slots that `auto` may reach: past the knee of every server that was measured."""


def _number_or_auto(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise ValueError("must be a whole number, or `auto`")
    return value


# Told apart first, so that a mistake is one sentence and not one for each kind.
Slots = Annotated[
    Annotated[Count, Tag("number")] | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(lambda value: "auto" if isinstance(value, str) else "number"),
    BeforeValidator(_number_or_auto),
]


LatencyCeiling = Annotated[
    Seconds | None,
    Field(description="beside `max_in_flight: auto`: fewer slots while more than 5 % of the calls take longer"),
]
AutoMax = Annotated[
    Count | None,
    Field(description=f"beside `max_in_flight: auto`: the most slots it may find; {AUTO_MAX:,} when unset"),
]


class EndpointSettings(Strict):
    """One URL."""

    url: str = Field(description="scheme, host and port of the server", examples=["http://vllm-0:8000"])
    max_in_flight: Slots = Field(
        default=64, description="slots: calls running at the same time; `auto` finds how many the server is good for"
    )
    latency_ceiling_s: LatencyCeiling = None
    auto_max: AutoMax = None

    @model_validator(mode="after")
    def _auto_alone(self) -> "EndpointSettings":
        _only_beside_auto(self)
        return self

    @property
    def most_slots(self) -> int:
        """The slots, or the most that `auto` may find."""
        return (self.auto_max or AUTO_MAX) if self.max_in_flight == "auto" else self.max_in_flight


def _only_beside_auto(settings: "EndpointSettings | ModelSettings") -> None:
    for name in ("latency_ceiling_s", "auto_max"):
        if getattr(settings, name) is not None and settings.max_in_flight != "auto":
            raise FaultAt((name,), "must stand beside `max_in_flight: auto`: slots that are given do not follow it")


class ModelSettings(Strict):
    """A model, as one or several endpoints serve it. `url` directly on the model is short for one endpoint."""

    dialect: Literal["openai", "vllm", "llamacpp", "tgi", "ollama", "completions", "custom"] = Field(
        default="openai", description="how the server wants to be asked"
    )
    custom: CustomSettings | None = Field(
        default=None, description="for `dialect: custom`: what to send, and where the answer stands"
    )
    keep_alive: KeepAlive | None = Field(
        default=None,
        description="for `dialect: ollama`: how long the model stays loaded after a call, in seconds or as `30m`; -1 "
        "is for ever; unset, Ollama unloads it after 5 idle minutes, and the next call waits until it is loaded",
    )
    batch: BatchSettings | None = Field(
        default=None,
        description="for `dialect: completions`: several records in one request, each with a prompt of its own",
        examples=[{"max_records": 8, "linger_s": 0.1}],
    )
    model: str = Field(min_length=1, description="the name the server knows it by")
    strict_model: bool = Field(
        default=False, description="hold the task when the server says that it ran a model of another name"
    )
    url: str | None = Field(default=None, description="short for one endpoint", examples=["http://vllm-0:8000"])
    max_in_flight: Slots | None = Field(
        default=None, description="slots of that one endpoint, or `auto`; 64 when unset"
    )
    latency_ceiling_s: LatencyCeiling = None
    auto_max: AutoMax = None
    endpoints: list[EndpointSettings] = Field(default=[], description="servers of the same model")
    timeout_s: Seconds = Field(default=1.0, description="one call, connection included")
    connect_timeout_s: Seconds = Field(default=0.5, description="one connection attempt, TLS included")
    warm_up_s: Seconds | None = Field(
        default=None,
        description="before records are read, and again after a minute without calls: one call to each endpoint, "
        "waited for so long; for servers that load the model at the first call",
    )
    http_client: Literal["lean", "aiohttp"] = Field(
        default="lean",
        description="`lean` takes HTTP/1.1 by the letter, at a quarter of the CPU per call; `aiohttp` forgives "
        "servers more",
    )
    max_attempts: Count = Field(default=3, description="calls for one record, the first included")
    max_tokens: Count = Field(default=256, description="longest answer asked for")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 for answers that can be repeated")
    api_key: OptionalSecret = Field(
        default=None, description="sent as a bearer token", examples=["${file:/run/secrets/llm_api_key}"]
    )
    ca_file: OptionalFile = Field(default=None, description="CA bundle (PEM) for https; the system's own when unset")
    tokenizer: OptionalFile = Field(
        default=None, description="tokenizer.json, to count tokens as the model does; estimated when unset"
    )
    max_response_bytes: Bytes = Field(default=1 << 20, description="a longer answer is cut off and refused")
    request_id: bool = Field(
        default=True,
        description="send an `X-Request-Id`, and refuse an answer that comes back with another request's; false for a "
        "cache before the server that repeats old headers and sets no `Age`",
    )
    breaker: Breaker = Field(default=Breaker(), description="when an endpoint is no longer asked")
    price: Price | None = Field(default=None, description="what its tokens cost: for `cost_usd` and budgets in dollars")

    @model_validator(mode="after")
    def _one_way_to_name_endpoints(self) -> "ModelSettings":
        if (self.url is None) == (not self.endpoints):
            raise ValueError("give either `url` or `endpoints`")
        if self.endpoints and self.max_in_flight is not None:
            raise ValueError("`max_in_flight` belongs on each endpoint when `endpoints` is used")
        _only_beside_auto(self)
        return self

    @model_validator(mode="after")
    def _only_of_its_dialect(self) -> "ModelSettings":
        if self.dialect == "custom" and self.custom is None:
            raise ValueError("`dialect: custom` wants `custom`, with `path`, `body` and `answer`")
        if self.custom is not None and self.dialect != "custom":
            raise FaultAt(("custom",), "must stand beside `dialect: custom`: no other dialect looks at it")
        if self.batch is not None and self.dialect not in CAN_BATCH:
            raise FaultAt(
                ("batch",), f"must stand beside `dialect: {CAN_BATCH[0]}`: only that server takes an array of prompts"
            )
        if self.keep_alive is not None and self.dialect != "ollama":
            raise FaultAt(("keep_alive",), "must stand beside `dialect: ollama`: no other server knows it")
        if self.strict_model and self.custom is not None and self.custom.model is None:
            raise FaultAt(("strict_model",), "must have `custom.model`: where else would the name of the model stand?")
        return self

    def all_endpoints(self) -> list[EndpointSettings]:
        """Return the endpoints, however they were written."""
        if self.url is None:
            return self.endpoints
        return [
            EndpointSettings(
                url=self.url,
                max_in_flight=self.max_in_flight or 64,
                latency_ceiling_s=self.latency_ceiling_s,
                auto_max=self.auto_max,
            )
        ]

    @property
    def finds_slots(self) -> bool:
        """Whether the slots of any endpoint are `auto`."""
        return any(endpoint.max_in_flight == "auto" for endpoint in self.all_endpoints())

    def with_endpoints(self, endpoints: list[EndpointSettings]) -> "ModelSettings":
        """Return the same model behind these endpoints alone."""
        alone = {"url": None, "max_in_flight": None, "latency_ceiling_s": None, "auto_max": None}
        return self.model_copy(update={**alone, "endpoints": endpoints})
