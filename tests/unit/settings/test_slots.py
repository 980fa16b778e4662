"""How many calls may run at once: never more than the process may open files for."""

import subprocess
import sys

import pytest

from workers.settings.model import Kafka, Settings, TaskSettings
from workers.settings.servers import EndpointSettings, ModelSettings
from workers.settings.slots import all_slots, fitted, slots_of, slots_that_fit, window_of


def settings_with(**models: ModelSettings) -> Settings:
    """Return settings of which only the models matter."""
    kafka = Kafka(bootstrap_servers="nowhere:1", group_id="g")
    return Settings.model_construct(kafka=kafka, models=models, tasks={})


ONE = ModelSettings(model="m", url="http://one", max_in_flight=90)
TWO = ModelSettings(
    model="m",
    endpoints=[EndpointSettings(url="http://a", max_in_flight=100), EndpointSettings(url="http://b", max_in_flight=10)],
)


@pytest.mark.fault("P9")
@pytest.mark.parametrize(("open_files", "slots"), [(1_024, 960), (128, 64), (64, 32), (20, 10)])
def test_files_are_kept_for_all_but_the_calls(open_files: int, slots: int) -> None:
    """64 of them, or half of what there is: brokers and probes need theirs."""
    assert slots_that_fit(open_files) == slots


@pytest.mark.fault("P9")
def test_what_fits_is_left_alone() -> None:
    """The same settings come back."""
    settings = settings_with(one=ONE, two=TWO)
    assert fitted(settings, 264) is settings


@pytest.mark.fault("P9")
def test_slots_that_do_not_fit_are_cut_in_proportion() -> None:
    """Each endpoint keeps its share, and one slot at least; the rest of a model stays as it was."""
    settings = fitted(settings_with(one=ONE, two=TWO), 100)
    assert all_slots(settings) <= slots_that_fit(100) == 50
    assert slots_of(settings.models["one"]) == 22
    assert [(each.url, each.max_in_flight) for each in settings.models["two"].all_endpoints()] == [
        ("http://a", 25),
        ("http://b", 2),
    ]
    assert settings.models["one"].model == "m"
    tight = fitted(settings_with(two=TWO), 8)
    assert [each.max_in_flight for each in tight.models["two"].all_endpoints()] == [3, 1]


@pytest.mark.fault("P9")
def test_a_soft_limit_is_raised_to_the_hard_one() -> None:
    """Shells and systems set a low soft limit and leave the hard one: no slot is lost for that."""
    asked = "from workers.settings.checks.host import raise_open_files, this_host"
    told = "print(raise_open_files(), this_host().open_files)"
    limited = f'ulimit -S -n 64; ulimit -H -n 200; exec {sys.executable} -c "{asked}; {told}"'
    ran = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "200 200\n"


AUTO = ModelSettings(model="m", url="http://c", max_in_flight="auto")


def test_auto_counts_with_the_most_it_may_find() -> None:
    """Open files and connections are for all of them; so many, and no longer by itself, when they do not fit."""
    assert (slots_of(AUTO), AUTO.finds_slots, ONE.finds_slots) == (1_024, True, False)
    bounded = ModelSettings(model="m", url="http://c", max_in_flight="auto", auto_max=100, latency_ceiling_s=2.0)
    assert slots_of(bounded) == 100
    cut = fitted(settings_with(auto=bounded), 100).models["auto"]
    assert [(each.max_in_flight, each.auto_max, each.latency_ceiling_s) for each in cut.all_endpoints()] == [
        ("auto", 50, 2.0)
    ]


def batching(*, slots: int, most: int) -> ModelSettings:
    """Return a model that puts so many records into one call."""
    server = {"dialect": "completions", "max_in_flight": slots, "batch": {"max_records": most}}
    return ModelSettings.model_validate({"model": "m", "url": "http://c", **server})


@pytest.mark.parametrize(
    ("given", "models", "window"),
    [
        (None, {"m": ONE}, 512),
        (None, {"m": ModelSettings(model="m", url="http://c", max_in_flight=300)}, 1_200),
        (None, {"m": batching(slots=64, most=16)}, 1_024),
        (None, {"m": batching(slots=200, most=2)}, 800),
        (None, {"m": AUTO}, 4_096),
        (300, {"m": AUTO}, 300),
        (None, {}, 512),
        (None, {"m": ModelSettings(model="m", url="http://c", max_in_flight="auto", auto_max=10)}, 512),
    ],
)
def test_a_task_takes_enough_records_for_its_slots(
    given: int | None, models: dict[str, ModelSettings], window: int
) -> None:
    """Four times as many, or what fills its batches, unless it says itself: slots given, or the most to be found."""
    task = TaskSettings.model_construct(model="m", max_in_flight=given)
    assert window_of(task, models) == window
