"""How many calls may run at once: as the configuration says, and as the process's open files allow."""

from collections.abc import Mapping

from workers.settings.model import Settings, TaskSettings
from workers.settings.servers import EndpointSettings, ModelSettings

WINDOW = 512
"""Records of a task that are taken and not finished, where nobody says how many and few slots ask for no more."""

SLOTS_PER_WINDOW = 4
"""Of these records some wait for a predecessor of their key; fewer would leave slots idle."""

FILES_BESIDE_SLOTS = 64
"""Open files that no call may take: about 20 at rest (brokers, listener, log, event loop), then probes."""


def slots_of(model: ModelSettings) -> int:
    """Return the slots of all endpoints of a model; with `auto` the most that there may be."""
    return sum(endpoint.most_slots for endpoint in model.all_endpoints())


def all_slots(settings: Settings) -> int:
    """Return the slots of all models together."""
    return sum(map(slots_of, settings.models.values()))


def window_of(task: TaskSettings, models: Mapping[str, ModelSettings]) -> int:
    """Return how many records of a task are taken and not finished: as it says, else enough that no slot idles."""
    if task.max_in_flight is not None:
        return task.max_in_flight
    return max([WINDOW, *(_filling(models[name]) for name in task.all_models() if name in models)])


def _filling(model: ModelSettings) -> int:
    """Return how many records keep all slots of a model full, and its batches."""
    per_slot = SLOTS_PER_WINDOW if model.batch is None else max(SLOTS_PER_WINDOW, model.batch.max_records)
    return per_slot * slots_of(model)


def slots_that_fit(open_files: int) -> int:
    """Return how many calls may run at once: each is a connection, and half of few files are kept for the others."""
    return open_files - min(FILES_BESIDE_SLOTS, open_files // 2)


def fitted(settings: Settings, open_files: int) -> Settings:
    """Return the settings with every endpoint's slots cut in proportion, where they would not fit, to one at least.

    Without it the first call past the limit would blame its endpoint (`Too many open files` looks like a failed
    connection), open the breaker, and send records down the ladder; probes and brokers would find no file either.
    """
    slots, fitting = all_slots(settings), slots_that_fit(open_files)
    if slots <= fitting:
        return settings
    models = {name: _cut(model, fitting / slots) for name, model in settings.models.items()}
    return settings.model_copy(update={"models": models})


def _cut(model: ModelSettings, share: float) -> ModelSettings:
    cut = [
        endpoint.model_copy(update={_bound(endpoint): max(1, int(endpoint.most_slots * share))})
        for endpoint in model.all_endpoints()
    ]
    return model.with_endpoints(cut)


def _bound(endpoint: EndpointSettings) -> str:
    return "auto_max" if endpoint.max_in_flight == "auto" else "max_in_flight"
