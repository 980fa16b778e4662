"""The play: tickets in, the model goes away in the middle, the model comes back; and watching the worker meanwhile."""

import asyncio
import contextlib
from collections.abc import Sequence
from itertools import pairwise

from workers.clock import monotonic_s
from workers.demo.deployment import PARTITIONS, Deployment
from workers.demo.processes import SimulatedModel
from workers.demo.screen import Screen
from workers.demo.sightings import WHILE_AWAY, Sightings
from workers.demo.tickets import Ticket
from workers.demo.worker_process import WorkerProcess
from workers.records import Outgoing
from workers.stream import readback

BEFORE, BURST, DURING = 0.36, 0.14, 0.25
"""Shares of the tickets: before the outage, all at once when it begins, during it. The rest comes after it."""

BEFORE_S, DURING_S, AFTER_S = 3.2, 3.0, 2.5
"""Over how many seconds they are written: slowly enough for the model, were it not for the outage."""

FAULT = "reset"
"""Every connection is reset, as by a server that has crashed: the quickest way to open a breaker."""

SEEN_WITHIN_S = 10.0
LAG_WITHIN_S = 20.0
REAL_MODEL_LAG_WITHIN_S = 240.0
"""A small model on a CPU takes its time."""

WATCH_EVERY_S = 0.2


class Play:
    """One run. `model` is None when the model is not ours to make fail: then there is no outage.

    `lag` is the group's in the end, as the broker has it, None when the broker did not tell.
    """

    def __init__(
        self,
        deployment: Deployment,
        worker: WorkerProcess,
        model: SimulatedModel | None,
        tickets: Sequence[Ticket],
        screen: Screen,
    ) -> None:
        self.sightings = Sightings()
        self._deployment = deployment
        self._worker = worker
        self._model = model
        self._tickets = tickets
        self._screen = screen
        self._seen_while_away = asyncio.Event()
        self.lag: int | None = None

    async def run(self) -> None:
        """Write every ticket and return when the group's lag is 0 (or will not be, in bounded time: see `lag`).

        Raises:
            Exit: the worker ended, or the broker took no more records.
        """
        script = asyncio.create_task(self._script())
        try:
            while not script.done():
                await asyncio.wait({script}, timeout=WATCH_EVERY_S)
                await self._watch()
            await script
        finally:
            script.cancel()
            await asyncio.gather(script, return_exceptions=True)  # it closes its producer

    async def _watch(self) -> None:
        self._worker.check_runs()
        now = await self._worker.snapshot()
        if self._model is not None:
            for sentence in self.sightings.look(self._worker.logged, now):
                self._screen.say(sentence, "bold")
            if self.sightings.has(*WHILE_AWAY):
                self._seen_while_away.set()
        if now is not None:
            self._screen.show(now, total=len(self._tickets))

    async def _script(self) -> None:
        deployment = self._deployment
        async with readback.writer(deployment.kafka) as writer:
            if self._model is None:
                await self._write(writer, self._tickets, BEFORE_S + DURING_S + AFTER_S)
            else:
                await self._write_around_an_outage(writer, self._model)
            await writer.confirmed()
        self._screen.say("every ticket is written")
        self.lag = await readback.lag_when_settled(
            deployment.kafka,
            {deployment.input: PARTITIONS},
            timeout_s=REAL_MODEL_LAG_WITHIN_S if self._model is None else LAG_WITHIN_S,
        )

    async def _write_around_an_outage(self, writer: readback.Writer, model: SimulatedModel) -> None:
        before, burst, during, after = acts(self._tickets)
        await self._write(writer, before, BEFORE_S)
        model.fail(FAULT)
        self._screen.say("the model goes away: it resets every connection", "bold red")
        await self._write(writer, burst, 0)
        await self._write(writer, during, DURING_S)
        await self._until_seen()
        model.ok()
        self._screen.say("the model is back", "bold green")
        await self._write(writer, after, AFTER_S)

    async def _write(self, writer: readback.Writer, tickets: Sequence[Ticket], over_s: float) -> None:
        """Write tickets evenly over some seconds."""
        began_s = monotonic_s()
        for number, ticket in enumerate(tickets):
            await asyncio.sleep(max(0.0, began_s + over_s * number / len(tickets) - monotonic_s()))
            await writer.send(
                Outgoing(self._deployment.input, None, ticket.key, ticket.value, list(ticket.headers), None)
            )

    async def _until_seen(self) -> None:
        """Leave the model away until all that shall be seen meanwhile has been seen, for a bounded time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._seen_while_away.wait(), SEEN_WITHIN_S)


def acts(tickets: Sequence[Ticket]) -> list[Sequence[Ticket]]:
    """Return the tickets of the four acts: before, the burst, during, after."""
    ends = [round(len(tickets) * share) for share in (0, BEFORE, BEFORE + BURST, BEFORE + BURST + DURING, 1)]
    return [tickets[first:end] for first, end in pairwise(ends)]
