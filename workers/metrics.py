"""Every series that Penstock exports, in one typed list. The README's table is generated from it.

Names follow Prometheus (base units, `_total` on counters); label values come from closed sets or from the
configuration, never from a record.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from workers.unlocked import Counts, Spreads

REGISTRY = CollectorRegistry()

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_AGE_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of the README's table."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


SERIES: list[Series] = []
"""Every series, in the order of this file."""


def _declare(name: str, kind: str, labels: tuple[str, ...], meaning: str) -> None:
    SERIES.append(Series(name=name, kind=kind, labels=labels, meaning=meaning))


def _counter(name: str, text: str, *labels: str) -> Counter:
    _declare(name, "counter", labels, text)
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    _declare(name, "gauge", labels, text)
    return Gauge(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    _declare(name, "histogram", labels, text)
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)


def _counts(name: str, text: str, *labels: str) -> Counts:
    """Declare a counter of what happens to every record."""
    _declare(name, "counter", labels, text)
    return Counts(name, text, labels, registry=REGISTRY)


def _spreads(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Spreads:
    """Declare a histogram of what happens to every record."""
    _declare(name, "histogram", labels, text)
    return Spreads(name, text, labels, bounds=bounds, registry=REGISTRY)


# ---- the queue: is the group keeping up?
LAG = _gauge("penstock_lag_records", "Records behind: end offset minus committed offset", "topic", "partition")
COMMIT_GAP = _gauge(
    "penstock_commit_gap_records", "Offsets finished past the commit point of this replica", "topic", "partition"
)
OLDEST_UNFINISHED_S = _gauge(
    "penstock_oldest_unfinished_seconds", "Age, by Kafka timestamp, of the oldest record in flight", "task"
)
RETRY_LAG = _gauge(
    "penstock_retry_lag_records", "Deferred records that wait in the retry topics: this replica's partitions", "task"
)
RETRY_OVERDUE_S = _gauge(
    "penstock_retry_overdue_seconds", "For how long the oldest deferred record in flight has been due", "task"
)
ASSIGNED_PARTITIONS = _gauge("penstock_assigned_partitions", "Partitions this replica owns", "topic")

# ---- inside the worker: how full are its queues?
IN_FLIGHT = _gauge("penstock_in_flight_records", "Records delivered and not finished", "task")
IN_FLIGHT_BYTES = _gauge("penstock_in_flight_bytes", "Bytes of those records", "task")
CHANNEL_DEPTH = _gauge("penstock_channel_batches", "Fetched batches waiting for the agent", "task")
CHAIN_DEPTH = _gauge("penstock_chained_records", "Records waiting for a predecessor of their key", "task")
HOT_KEY_CHAIN = _gauge(
    "penstock_hot_key_chain_records", "Records waiting behind the busiest key (which, no label says)", "task"
)
TASK_HELD = _gauge("penstock_task_held", "1 while the task starts no record, by reason", "task", "reason")

# ---- records: what became of them?
RECORDS = _counts("penstock_records_total", "Finished records", "task", "outcome", "tier", "reason")
RECORD_S = _spreads(
    "penstock_record_duration_seconds",
    "From the start of a record's work to its acknowledged output",
    _LATENCY_S,
    "task",
)
RECORD_AGE_S = _spreads("penstock_record_age_seconds", "From the Kafka timestamp to the ack", _AGE_S, "task")
SKIPPED = _counter(
    "penstock_records_skipped_total", "Records not done again: the commit metadata says they are finished", "topic"
)
ADOPTED = _counter("penstock_calls_adopted_total", "Running calls taken over after a rebalance", "topic")

# ---- the model: how does it answer?
CALLS = _counts("penstock_model_calls_total", "Calls by outcome: ok or the error's reason", "model", "outcome")
CALL_S = _spreads(
    "penstock_model_call_duration_seconds", "One call, connection included", _LATENCY_S, "model", "outcome"
)
CALLS_RUNNING = _gauge("penstock_model_calls_running", "Calls running now", "model", "endpoint")
SLOTS = _gauge("penstock_model_slots", "Calls that may run at once now; 429 and 503 lower it", "model", "endpoint")
SLOTS_FOUND = _gauge(
    "penstock_model_slots_found", "With `max_in_flight: auto`: the slots it keeps to between tries", "model", "endpoint"
)
SLOTS_CHANGED = _counter(
    "penstock_model_slots_changes_total",
    "With `max_in_flight: auto`: changes of what it keeps to, by reason",
    "model",
    "endpoint",
    "reason",
)
RETRIES = _counter("penstock_model_retries_total", "Attempts after the first", "model", "reason")
RETRIES_REFUSED = _counter(
    "penstock_model_retries_refused_total", "Further attempts that the retry budget did not allow", "model"
)
CALLS_SHARED = _counter(
    "penstock_model_calls_shared_total", "Answers taken from a running call of another record", "model"
)
BATCH_RECORDS = _histogram(
    "penstock_llm_batch_records", "Records in one call of a model with `batch`", (1, 2, 4, 8, 16, 32, 64, 128), "model"
)
CACHE_LOOKUPS = _counter(
    "penstock_answer_cache_lookups_total",
    "Lookups by result: hit, miss; expired counts those misses whose answer had grown too old",
    "model",
    "result",
)
COST_USD = _counter(
    "penstock_llm_cost_usd_total", "What answered calls cost, by the prices of the configuration", "task", "model"
)
BUDGET_SPENT_RATIO = _gauge(
    "penstock_budget_spent_ratio", "Used today of this replica's share of a budget; 1 is spent", "task", "kind"
)
TOKENS = _counts("penstock_model_tokens_total", "Tokens as the server counts them", "model", "direction")
BREAKER_STATE = _gauge("penstock_breaker_state", "0 closed, 1 half-open, 2 open", "model", "endpoint")
BREAKER_OPENED = _counter("penstock_breaker_opened_total", "Times it opened", "model", "endpoint", "reason")
ANSWERS_SALVAGED = _counter(
    "penstock_answers_salvaged_total",
    "Answers that needed repair, by rung: fenced, embedded, thought, escaped, larger_budget, asked_again",
    "task",
    "rung",
)
INPUTS_CUT = _counter(
    "penstock_inputs_cut_total", "Texts cut for a prompt because they were over their budget", "task", "keep"
)
ASKED_AGAIN = _counter(
    "penstock_answers_asked_again_total", "Second asks, by what was wrong with the first answer", "task", "reason"
)

# ---- offsets and output: does Kafka take what we give?
COMMITS = _counter("penstock_commits_total", "Commit requests by result", "result")
COMMIT_METADATA_IGNORED = _counter(
    "penstock_commit_metadata_ignored_total", "Commit metadata that was not ours or did not fit", "reason"
)
OFFSETS_LOST = _counter("penstock_records_lost_to_retention_total", "Offsets that retention removed before us", "topic")
SENDS_RETRIED = _counter("penstock_sends_retried_total", "Sends repeated, by cause", "cause")
PRODUCER_REPLACED = _counter("penstock_producer_replaced_total", "Producers given up after an error")
SENDS_PENDING = _gauge("penstock_sends_pending", "Records in the producer's hands")
REVIEW_SUPPRESSED = _counter(
    "penstock_review_suppressed_total", "Reviews not asked for: past max_per_hour, or copy refused", "task"
)
RULES_FAILED = _counter(
    "penstock_rules_failed_total", "Python rules that failed, so that the next rung answered", "task", "cause"
)
GUARD_BUDGET = _gauge("penstock_guard_budget", "Rejects of our own making that are still allowed", "task")

# ---- the process
READY = _gauge("penstock_ready", "1 while /readyz answers 200")
LOOP_LAG_S = _gauge("penstock_event_loop_lag_seconds", "Longest delay of the event loop in the last 5 s")
LOG_DROPPED = _counter("penstock_log_lines_dropped_total", "Log lines dropped because stdout was blocked")
BUILD_INFO = _gauge("penstock_build_info", "Always 1", "version", "python", "aiokafka", "faust")
ProcessCollector(registry=REGISTRY)  # CPU, memory, file descriptors, under the names that all exporters share


def render() -> bytes:
    """Return the exposition text (format 0.0.4)."""
    return generate_latest(REGISTRY)


def table() -> str:
    """Return the series as a Markdown table: what the README shows between its `metrics` markers."""
    rows = ["| Name | Type | Labels | Meaning |", "|---|---|---|---|"]
    for series in SERIES:
        labels = ", ".join(f"`{label}`" for label in series.labels)
        rows.append(f"| `{series.name}` | {series.kind} | {labels} | {series.meaning} |")
    rows.append("| `process_*` | | | CPU, memory and file descriptors of the process |")
    return "\n".join(rows)
