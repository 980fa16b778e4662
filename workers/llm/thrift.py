"""What stands before a model so that no call is wasted: a cache, one flight for identical requests, and batches."""

from workers.llm.batches import Batches
from workers.llm.cache import Cached
from workers.llm.flights import SingleFlight
from workers.ports import Model
from workers.settings.batch import BatchSettings
from workers.settings.model import TaskSettings


def thrifty(model: Model, task: TaskSettings, batch: BatchSettings | None) -> Model:
    """Return the model as the task, and its own `batch`, want it asked; the model itself unless they say otherwise."""
    if batch is not None:
        model = Batches(model, batch)
    if task.share_calls:
        model = SingleFlight(model)
    return Cached(model, task.cache) if task.cache is not None else model
