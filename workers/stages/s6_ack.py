"""Stage 6, ack: outgoing records -> confirmed by the broker -> the offset may move. Only this stage acks."""

from collections.abc import Iterable

from workers.ports import Permit, Sink
from workers.records import Outgoing


async def ack(outgoings: Iterable[Outgoing], permit: Permit, sink: Sink) -> bool:
    """Send in order, each confirmed before the next, then ack. Return False when the partition left before a send.

    What an earlier try has written already is not sent again.

    Raises:
        NotWritten: a record that its topic will never take; nothing was acked.
    """
    permit.passage.busy = True
    for outgoing in outgoings:
        if permit.gone:  # the next owner does it: an output now would be a sure duplicate
            return False
        if outgoing.topic not in permit.passage.written:
            await sink.send(outgoing)
            permit.passage.written += (outgoing.topic,)
    permit.ack()
    return True
