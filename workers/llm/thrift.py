"""What a task puts before its model so that no call is wasted: a cache, and one flight for identical requests."""

from workers.llm.cache import Cached
from workers.llm.flights import SingleFlight
from workers.ports import Model
from workers.settings.model import TaskSettings


def thrifty(model: Model, task: TaskSettings) -> Model:
    """Return the model as the task wants it asked; the model itself unless the task says otherwise."""
    if task.share_calls:
        model = SingleFlight(model)
    return Cached(model, task.cache) if task.cache is not None else model
