"""A `Model` (workers.ports) before another: what the wrappers of `thrift` leave as it is."""

from workers.ports import Ask, Frame, Model


class Before:
    """Passes on everything but `complete`, which is the wrapper's own."""

    def __init__(self, model: Model) -> None:
        self.name = model.name
        self._model = model

    def frame(self, ask: Ask) -> Frame:
        """Return the frame of the model behind."""
        return self._model.frame(ask)

    def answered_since(self, at_s: float) -> bool:
        """Return whether any call has succeeded since `at_s` (monotonic)."""
        return self._model.answered_since(at_s)

    def held_reason(self) -> str | None:
        """Return why a person must act before the model behind answers."""
        return self._model.held_reason()

    def pace_per_s(self) -> float:
        """Return the rate of the model behind."""
        return self._model.pace_per_s()
