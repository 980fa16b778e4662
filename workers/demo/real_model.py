"""A model server of the user's: asked once before anything is started on it, so that a typing error is told at once."""

from workers.demo.deployment import TASK
from workers.errors import EX_UNAVAILABLE, Exit, NoAnswer
from workers.llm import Client
from workers.settings.model import Settings
from workers.task import ask_of


async def check_answers(settings: Settings) -> None:
    """Ask the demo's model one question of the demo's kind.

    Raises:
        Exit: 69, it did not answer; the text says why.
    """
    task = settings.tasks[TASK]
    model = settings.models[task.model]
    ask = ask_of(TASK, task, model)
    client = Client(task.model, model)
    await client.start()
    try:
        await client.probe(ask)
    except NoAnswer as exc:
        raise Exit(EX_UNAVAILABLE, f"the model was asked once and did not answer: {exc}") from exc
    finally:
        await client.close()
