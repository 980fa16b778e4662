"""`penstock run CONFIG`: the worker itself."""

import typer
import uvloop

from workers import log, metrics
from workers.cli.configuration import Config, read_or_exit
from workers.errors import EX_SOFTWARE
from workers.llm import Client
from workers.llm.thrift import thrifty
from workers.settings.checks.host import raise_open_files
from workers.settings.model import Settings
from workers.settings.slots import all_slots, fitted
from workers.stream.worker import Worker
from workers.task import compile_task

LOG_FLUSH_S = 2.0

_log = log.get_logger(__name__)


def run(config: Config) -> None:
    """Run the worker until SIGTERM or SIGINT; a second one ends it at once.

    Exit codes: 0 drained and committed, 69 no broker within startup_timeout_s, 70 an internal error, 78 something in
    the configuration, the topics or the rights that a person has to mend.

    Example: penstock run config/pipelines/tickets.yaml
    """
    loaded = read_or_exit(config)
    logs = loaded.settings.worker.log
    log.configure(logs.level, logs.format, loaded.secrets, on_drop=metrics.LOG_DROPPED.inc)
    try:
        code = uvloop.run(_work(_fitted(loaded.settings)))
    except Exception:  # noqa: BLE001 - the last word of the process
        # The interpreter's own traceback would go past the redactor, and end with code 1.
        _log.exception("stopping", reason="an internal error", code=EX_SOFTWARE)
        code = EX_SOFTWARE
    finally:
        log.flush(LOG_FLUSH_S)
    raise typer.Exit(code)


def _fitted(settings: Settings) -> Settings:
    """Return the settings with no more slots than this process may open files for, and say so when they were cut."""
    open_files = raise_open_files()
    fitting = fitted(settings, open_files)
    if fitting is not settings:
        _log.warning("slots_cut", slots=all_slots(fitting), configured=all_slots(settings), open_files=open_files)
    return fitting


async def _work(settings: Settings) -> int:
    models = {name: Client(name, model) for name, model in settings.models.items()}
    tasks = []
    for name, task in settings.tasks.items():
        served = {
            model: (thrifty(models[model], task, settings.models[model].batch), settings.models[model])
            for model in task.all_models()
        }
        tasks.append(compile_task(name, task, *served.pop(task.model), others=served))
    return await Worker(settings, tasks, list(models.values())).run()
