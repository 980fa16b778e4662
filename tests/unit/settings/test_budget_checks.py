"""Budgets in a configuration: what is read, and which mistakes are found, at their places."""

from pathlib import Path

import pytest

from tests.support.settings_files import SOUND, planted, write_sound
from workers.settings.checks import check
from workers.settings.checks.host import Host
from workers.settings.source import load

HOST = Host(memory_bytes=1 << 30, open_files=1024)
TASK = "    input: raw"
URL = "    url: http://localhost:8000"
PRICE = "{input_usd_per_1m_tokens: 0.25, output_usd_per_1m_tokens: 2.00}"
FREE = "{input_usd_per_1m_tokens: 0, output_usd_per_1m_tokens: 0}"
LADDER = "    ladder:\n      - rules: rules.yaml\n      - default: {label: other}\n"


def test_a_price_and_a_budget_are_read(tmp_path: Path) -> None:
    """As they stand in the documentation; nothing is wrong with them."""
    text = SOUND.replace(URL, f"{URL}\n    price: {PRICE}")
    text = text.replace(TASK, f"{TASK}\n    budget: {{tokens_per_day: 5000000, usd_per_day: 20.0}}")
    loaded = load(write_sound(tmp_path, text), environ={})
    assert check(loaded, HOST) == []
    budget, price = loaded.settings.tasks["triage"].budget, loaded.settings.models["small"].price
    assert budget is not None
    assert price is not None
    assert (budget.tokens_per_day, budget.usd_per_day, budget.when_spent) == (5_000_000, 20.0, "fallback")
    assert (price.input_usd_per_1m_tokens, price.output_usd_per_1m_tokens) == (0.25, 2.0)


@pytest.mark.parametrize("price", ["", f"\n    price: {FREE}"], ids=["none", "zero"])
def test_dollars_that_nothing_costs_are_an_error(price: str, tmp_path: Path) -> None:
    """A limit that can never be reached is no limit: the worker does not start."""
    text, place = planted(TASK, f"{TASK}\n    budget: {{usd_per_day: «20}}", SOUND.replace(URL, URL + price))
    [problem] = check(load(write_sound(tmp_path, text), environ={}), HOST)
    assert (problem.severity, problem.line, problem.column) == ("error", *place)
    assert "no model of this task has a `price`" in problem.what


def test_one_model_with_a_price_is_enough(tmp_path: Path) -> None:
    """The small model of one's own costs nothing, the large one below it does."""
    text = SOUND.replace("tasks:\n", f"  large: {{model: l, url: http://localhost:1, price: {PRICE}}}\ntasks:\n")
    text = text.replace("      - rules: rules.yaml", "      - model: large\n      - rules: rules.yaml")
    text = text.replace(TASK, f"{TASK}\n    budget: {{usd_per_day: 20}}")
    assert check(load(write_sound(tmp_path, text), environ={}), HOST) == []


def test_fallback_without_a_rung_is_said(tmp_path: Path) -> None:
    """The rest of the day would be dead letters."""
    text, place = planted(LADDER, "    when_unavailable: hold\n    «budget: {tokens_per_day: 1000}\n", SOUND)
    [problem] = check(load(write_sound(tmp_path, text), environ={}), HOST)
    assert (problem.severity, problem.line, problem.column) == ("warning", *place)
    assert "would fill the dead-letter topic" in problem.what


def test_hold_needs_no_rung(tmp_path: Path) -> None:
    """Nothing leaves."""
    held = "    when_unavailable: hold\n    budget: {tokens_per_day: 1000, when_spent: hold}\n"
    assert check(load(write_sound(tmp_path, SOUND.replace(LADDER, held)), environ={}), HOST) == []
