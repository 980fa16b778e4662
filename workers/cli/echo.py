"""`penstock echo CONFIG`: the configuration as the worker understands it."""

import sys
from typing import Any

import yaml
from rich.console import Console
from rich.syntax import Syntax

from workers.cli.configuration import Config, read_or_exit
from workers.settings.source import Loaded
from workers.settings.tree import CoreDumper


def echo(config: Config) -> None:
    """Print the configuration in full, secrets hidden.

    Every default and every variable is filled in. Sizes are bytes, durations seconds, paths absolute. The output is a
    configuration again, but for its secrets.

    Example: penstock echo config/pipelines/tickets.yaml
    """
    text = resolved(read_or_exit(config))
    if sys.stdout.isatty():
        Console().print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:
        print(text, end="")


def resolved(loaded: Loaded) -> str:
    """Return the settings as YAML, without any secret, even one in a place that is none."""
    values = loaded.settings.model_dump(mode="json", by_alias=True)
    return yaml.dump(_escaped(values, loaded), Dumper=CoreDumper, sort_keys=False, allow_unicode=True, width=120)


def _escaped(value: Any, loaded: Loaded) -> Any:
    if isinstance(value, dict):
        return {name: _escaped(child, loaded) for name, child in value.items()}
    if isinstance(value, list):
        return [_escaped(child, loaded) for child in value]
    return loaded.redactor.text(value).replace("${", "$${") if isinstance(value, str) else value
