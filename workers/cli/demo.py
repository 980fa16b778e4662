"""`penstock demo`: the main job on an embedded broker and a simulated model, with every record accounted for."""

import signal
import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console

from workers import log
from workers.demo.run import Wishes
from workers.demo.run import demo as perform

PLAIN_WIDTH = 100
INTERRUPTED = 130


def demo(
    *,
    bootstrap_servers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A broker of yours; new topics are made on it.")
    ] = None,
    model_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A model server of yours (OpenAI's API); it is not made to fail.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="What that server calls its model.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Only the summary on stdout, as one JSON object.")] = False,
) -> None:
    """Send support tickets through a model that goes away in the middle, and account for every one of them.

    Exit codes: 0 every ticket has exactly one outcome and the lag is 0; 1 not so, and it is said what is wrong; 69 no
    broker, or a part could not be started.

    Example: penstock demo --json
    """
    if (model_url is None) != (model is None):
        raise typer.BadParameter("--model-url and --model belong together")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell script's background job inherits it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # both end it in the same order
    console = Console(stderr=json, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    wishes = Wishes(bootstrap_servers=bootstrap_servers, model_url=model_url, model=model)
    try:
        with log.silenced():
            summary = perform(wishes, console)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has ended")
        raise typer.Exit(INTERRUPTED) from None
    if json:
        sys.stdout.write(orjson.dumps(summary.as_json()).decode() + "\n")
    raise typer.Exit(summary.code)
