"""How many calls may run at once: as the configuration says, and as the process's open files allow."""

from workers.settings.model import Settings
from workers.settings.servers import ModelSettings

FILES_BESIDE_SLOTS = 64
"""Open files that no call may take: about 20 at rest (brokers, listener, log, event loop), then probes."""


def slots_of(model: ModelSettings) -> int:
    """Return the slots of all endpoints of a model."""
    return sum(endpoint.max_in_flight for endpoint in model.all_endpoints())


def all_slots(settings: Settings) -> int:
    """Return the slots of all models together."""
    return sum(map(slots_of, settings.models.values()))


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
        endpoint.model_copy(update={"max_in_flight": max(1, int(endpoint.max_in_flight * share))})
        for endpoint in model.all_endpoints()
    ]
    return model.model_copy(update={"url": None, "max_in_flight": None, "endpoints": cut})
