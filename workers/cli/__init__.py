"""The command line: one file per verb, thin."""

import importlib
import importlib.metadata
import sys
from typing import Annotated

import typer

VERBS = {
    "run": "run:run",
    "demo": "demo:demo",
    "lint": "lint:lint",
    "release": "release:release",
    "try": "try_record:try_record",
    "dry-run": "dry_run:dry_run",
    "audit": "audit:audit",
    "echo": "echo:echo",
    "schema": "schema:schema",
    "topics": "topics:app",
}
"""Each verb's module in this package, and its function (or its Typer, for a verb with verbs of its own)."""


def main() -> None:
    """Run the command that was typed. Exit codes: sysexits.h, and 2 for a wrong command line."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    application(verb, for_people=sys.stdout.isatty())()


def application(verb: str = "", *, for_people: bool = False) -> typer.Typer:
    """Return the command line, with `verb` alone if there is such a verb: `lint` need not wait for Kafka's clients.

    `for_people`: colours and boxes in help texts; plain text otherwise.
    """
    app = typer.Typer(
        name="penstock",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if for_people else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_penstock)
    for name in [verb] if verb in VERBS else VERBS:
        module, _, attribute = VERBS[name].partition(":")
        found = getattr(importlib.import_module(f"workers.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        print(f"penstock {importlib.metadata.version('penstock')}")
        raise typer.Exit


def _penstock(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Send each record of a Kafka topic to a language model, and lose none.

    Example: penstock lint config/pipelines/tickets.yaml
    """
