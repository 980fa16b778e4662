"""Numbers that cannot hold together. Warnings: the worker would start, and disappoint later."""

from collections.abc import Iterator

from workers.settings import tree
from workers.settings.checks.host import Host
from workers.settings.model import TaskSettings
from workers.settings.problems import Problem
from workers.settings.servers import ModelSettings
from workers.settings.slots import FILES_BESIDE_SLOTS, SLOTS_PER_WINDOW, all_slots, slots_of, slots_that_fit, window_of
from workers.settings.source import Loaded

Finding = tuple[tree.Path, str]

_REBALANCE_MARGIN_S = 10.0  # the consumer's rebalance timeout is drain_s plus this
_BROKER_SESSION_MIN_S = 6.0  # Kafka's group.min.session.timeout.ms
_COMMIT_INTERVAL_LONG_S = 5.0
_PARTITION_WINDOW_LARGE = 256
_EVERYWHERE = {"0.0.0.0", "::", "[::]"}  # noqa: S104 - looked for, to warn about it


def check(loaded: Loaded, host: Host) -> Iterator[Problem]:
    """Yield a warning for each relation that does not hold."""
    for at, what in [*_group(loaded), *_memory(loaded, host), *_models(loaded, host), *_tasks(loaded)]:
        yield loaded.problem(at, what, severity="warning")


def _group(loaded: Loaded) -> Iterator[Finding]:
    kafka, worker = loaded.settings.kafka, loaded.settings.worker
    if kafka.session_timeout_s < _BROKER_SESSION_MIN_S:
        yield (
            ("kafka", "session_timeout_s"),
            f"brokers refuse less than {_BROKER_SESSION_MIN_S:g} s unless group.min.session.timeout.ms is lowered",
        )
    if kafka.commit_interval_s > _COMMIT_INTERVAL_LONG_S:
        yield ("kafka", "commit_interval_s"), "a crash repeats everything since the last commit: 0.2 costs little"
    rebalance_s = worker.drain_s + _REBALANCE_MARGIN_S
    if worker.revoke_wait_s + kafka.heartbeat_s >= rebalance_s:
        what = (
            f"with a heartbeat ({kafka.heartbeat_s:g} s) it is not below the rebalance timeout"
            f" (drain_s + {_REBALANCE_MARGIN_S:g} = {rebalance_s:g} s): the group would go on without this replica"
        )
        yield ("worker", "revoke_wait_s"), what
    if worker.http.host in _EVERYWHERE:
        yield ("worker", "http", "host"), "probes and metrics are open to every network this host is on"


def _memory(loaded: Loaded, host: Host) -> Iterator[Finding]:
    tasks, limit_bytes = loaded.settings.tasks, loaded.settings.worker.max_in_flight_bytes
    at: tree.Path = ("worker", "max_in_flight_bytes")
    if limit_bytes > host.memory_bytes // 2:
        yield at, f"more than half of the {_mib(host.memory_bytes)} that this process may use"
    share_bytes = limit_bytes // len(tasks)
    for name, task in tasks.items():
        if task.max_input_bytes > share_bytes:
            yield (
                ("tasks", name, "max_input_bytes"),
                f"one such record exceeds the task's share of `worker.max_in_flight_bytes` ({_mib(share_bytes)})",
            )


def _models(loaded: Loaded, host: Host) -> Iterator[Finding]:
    used = {model for task in loaded.settings.tasks.values() for model in task.all_models()}
    for name, model in loaded.settings.models.items():
        if name not in used and used <= loaded.settings.models.keys():
            yield ("models", name), "no task uses this model"
        if model.connect_timeout_s > model.timeout_s:
            yield ("models", name, "connect_timeout_s"), f"longer than the whole call (timeout_s: {model.timeout_s:g})"
    slots, fitting = all_slots(loaded.settings), slots_that_fit(host.open_files)
    if fitting < slots:
        what = f"{slots} slots need {slots + FILES_BESIDE_SLOTS} open files, the limit is {host.open_files}"
        yield ("models",), f"{what}: raise `ulimit -n`, or only {fitting} are used"


def _tasks(loaded: Loaded) -> Iterator[Finding]:
    for name, task in loaded.settings.tasks.items():
        model = loaded.settings.models.get(task.model)
        if model is None:
            continue
        at: tree.Path = ("tasks", name)
        if model.timeout_s > task.deadline_s:
            yield (
                (*at, "deadline_s"),
                f"shorter than one call of its model (timeout_s: {model.timeout_s:g}): calls are cut off early",
            )
        if loaded.settings.worker.drain_s < model.timeout_s:
            yield (
                ("worker", "drain_s"),
                f"shorter than one call (timeout_s: {model.timeout_s:g}): a stop cuts calls off",
            )
        window = window_of(task, loaded.settings.models)
        yield from _window((*at, "max_in_flight"), task, model, window)


def _window(at: tree.Path, task: TaskSettings, model: ModelSettings, window: int) -> Iterator[Finding]:
    slots = slots_of(model)
    if task.order == "partition":
        if task.max_in_flight is not None and window > _PARTITION_WINDOW_LARGE:
            yield at, "`order: partition` works on one record of a partition at a time: the others only fill memory"
    elif window < SLOTS_PER_WINDOW * slots:
        yield at, f"{window}, less than {SLOTS_PER_WINDOW} x the {slots} slots of its model: slots idle"
    elif model.batch is not None and window < (full := slots * model.batch.max_records):
        yield at, f"{window}, and {full} records fill its model's batches: calls go out late and half empty"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.4g} MiB"
