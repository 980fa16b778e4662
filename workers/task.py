"""A task, compiled: what its configuration says, turned once into what a record needs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from topics.spec import KINDS, KINDS_WITH_RETRY, output_names
from workers.answers import CompiledSchema, compile_schema
from workers.budget import Budget, Kind
from workers.guard import Guard
from workers.inputs import Fit, fitting
from workers.ladder import Test, build_ladder, compile_condition
from workers.pace import Pace
from workers.ports import Ask, Frame, Model, Rung
from workers.prompts import CompiledPrompt, compile_prompt
from workers.retry_budget import RetryBudget
from workers.selection import Selection, selection
from workers.settings.budget import Price
from workers.settings.model import TaskSettings
from workers.settings.servers import ModelSettings

_Files = tuple[CompiledPrompt, CompiledSchema | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTopics:
    """Where the outcomes of one input topic go; `retry` only with `when_unavailable: defer`."""

    enriched: str
    fallback: str
    review: str
    dlq: str
    retry: str | None = None

    def names(self) -> tuple[str, ...]:
        """Return all that there are."""
        four = self.enriched, self.fallback, self.review, self.dlq
        return four if self.retry is None else (*four, self.retry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Everything that stays the same from record to record, and the small memories that a task has.

    `render` is the compiled template of the user's text; `check` returns None for a value that the answer schema
    accepts, else what is wrong with it, and is None itself for text answers. `outputs` is keyed by input topic.
    `next_model` is this task on the next model of its ladder, which comes `after_another`; `routes` are conditions on
    the decoded value, each with this task on the models that such a record is sent to. `selection` says which records
    see the model at all. `wide_frame` asks for twice as many tokens, once an answer was cut. `price` is the model's,
    `budget` the task's. `fit` cuts what is over the prompt's budget, by this model's count.
    """

    name: str
    settings: TaskSettings
    model: Model
    frame: Frame
    render: Callable[..., str]
    check: Callable[[Any], str | None] | None
    ladder: tuple[Rung, ...]
    outputs: Mapping[str, OutputTopics]
    prompt_version: str
    schema_version: str
    guard: Guard
    pace: Pace
    next_model: "Task | None" = None
    after_another: bool = False
    routes: "tuple[tuple[Test, Task], ...]" = ()
    selection: Selection | None = None
    wide_frame: Frame | None = None
    second_asks: RetryBudget = field(default_factory=RetryBudget)
    price: Price | None = None
    budget: Budget | None = None
    fit: Fit | None = None

    def models(self) -> Iterator[Model]:
        """Yield the models that are asked, in their order, and then those that only a route leads to."""
        seen: list[Model] = []
        for first in (self, *(routed for _, routed in self.routes)):
            task: Task | None = first
            while task is not None:
                if task.model not in seen:
                    seen.append(task.model)
                    yield task.model
                task = task.next_model

    def retry_topics(self) -> list[str]:
        """Return the retry topics that this task reads: none unless it defers."""
        return list(dict.fromkeys(of.retry for of in self.outputs.values() if of.retry is not None))

    def over_budget(self) -> Kind | None:
        """Return the limit that forbids a call to this model, None while it may be asked."""
        if self.budget is None:
            return None
        return self.budget.refuses(costs=self.price is not None and not self.price.free)

    def out_of_budget(self) -> Kind | None:
        """Return the limit that leaves nobody to ask, this model and those below; None while one may be asked."""
        spent = self.over_budget()
        if spent is None or self.next_model is None:
            return spent
        return self.next_model.out_of_budget()

    def holds_for_budget(self) -> Kind | None:
        """Return the limit for which records wait (`when_spent: hold`), on any route; None while none waits."""
        if self.budget is None or self.budget.idle or self.budget.when_spent != "hold":
            return None
        spent = (task.out_of_budget() for task in (self, *(routed for _, routed in self.routes)))
        return next((kind for kind in spent if kind is not None), None)

    def for_value(self, value: Any) -> "Task":
        """Return this task on the models that a record with this decoded value is sent to."""
        return next((routed for holds, routed in self.routes if holds(value)), self)


def compile_task(
    name: str,
    settings: TaskSettings,
    model: Model,
    model_settings: ModelSettings,
    others: Mapping[str, tuple[Model, ModelSettings]] = MappingProxyType({}),
) -> Task:
    """Return the task, its files read and compiled. The paths in `settings` are absolute.

    `others`: the models of its ladder and of its routes, by name; one that is left out is not asked.

    Raises:
        ValueError: a file that `lint` would have named.
    """
    files = prompt, schema = _asking_files(settings)
    check = schema.check if schema else None
    task = Task(
        name=name,
        settings=settings,
        **_on(name, settings, files, model, model_settings),
        render=prompt.render,
        check=check,
        ladder=build_ladder(settings.ladder, check, task_name=name),
        outputs=outputs_of(name, settings),
        prompt_version=settings.prompt.version or prompt.version,
        schema_version=schema.version if schema else "",
        guard=Guard(with_decode=settings.decode_guard),
        pace=Pace(unlimited=settings.fallback_rate == "unlimited"),
        selection=selection(settings, name),
        budget=Budget(settings.budget) if settings.budget is not None else None,
    )

    def below(models: Sequence[str]) -> Task | None:
        """Return the task on these models, one after the other."""
        first: Task | None = None
        for other in (others[called] for called in reversed(models) if called in others):
            first = replace(task, **_on(name, settings, files, *other), next_model=first, after_another=True)
        return first

    _, *ladder = settings.models_in_order()
    whole = replace(task, next_model=below(ladder))
    routes = []
    for route in settings.routes:
        routed = whole if route.model == settings.model else below(list(dict.fromkeys([route.model, *ladder])))
        if routed is not None:
            routes.append((compile_condition(route.when), replace(routed, after_another=False)))
    return replace(whole, routes=tuple(routes))


def _on(
    name: str, settings: TaskSettings, files: _Files, model: Model, model_settings: ModelSettings
) -> dict[str, Any]:
    """Return what of a task depends on the model that it asks."""
    ask = _ask(name, *files, model_settings)
    frame = model.frame(ask)
    wide = model.frame(replace(ask, max_tokens=2 * ask.max_tokens))
    return {
        "model": model,
        "frame": frame,
        "wide_frame": None if wide == frame else wide,  # a body that does not say how many would ask the same
        "price": model_settings.price,
        "fit": fitting(settings.inputs, model_settings.tokenizer),
    }


def ask_of(name: str, settings: TaskSettings, model_settings: ModelSettings) -> Ask:
    """Return what a task asks of a model, from its files. Raises as `compile_task`."""
    return _ask(name, *_asking_files(settings), model_settings)


def _asking_files(settings: TaskSettings) -> _Files:
    schema = compile_schema(settings.answer.schema_file) if settings.answer.schema_file else None
    return compile_prompt(settings.prompt.system, settings.prompt.user), schema


def _ask(name: str, prompt: CompiledPrompt, schema: CompiledSchema | None, model_settings: ModelSettings) -> Ask:
    return Ask(
        name=name,
        system=prompt.system,
        schema=schema.schema if schema else None,
        max_tokens=model_settings.max_tokens,
        temperature=model_settings.temperature,
    )


def outputs_of(name: str, settings: TaskSettings) -> dict[str, OutputTopics]:
    """Return where the outcomes go, by input topic; a retry topic is an input as well."""
    outputs = {topic: output_topics(topic, name, settings) for topic in settings.input}
    return outputs | {of.retry: of for of in outputs.values() if of.retry is not None}


def output_topics(topic: str, task: str, settings: TaskSettings) -> OutputTopics:
    """Return where the outcomes of an input topic go."""
    kinds = KINDS_WITH_RETRY if settings.defers else KINDS
    return OutputTopics(**output_names(topic, task, {kind: getattr(settings.topics, kind) for kind in kinds}, kinds))
