"""A write on a connection that has just closed: an error that aiokafka understands, on uvloop as well.

asyncio ignores such a write, and the pending reply fails with the connection; uvloop raises RuntimeError, and aiokafka
translates only OSError. Inside its metadata task that ends the task, and with it, silently and for ever, every look-up
of leaders and coordinators of that client: fetched records are finished, and nothing is committed any more.

aiokafka has no seam for this, so one method of its connection is wrapped; the version is pinned, and a test holds it.
"""

from collections.abc import Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send: Callable[..., Any] = AIOKafkaConnection.send


def tolerate() -> None:
    """Let all connections of this process treat it as a broken connection, from now on."""
    AIOKafkaConnection.send = send


def send(connection: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:  # noqa: FBT001, FBT002 - aiokafka's signature
    """Send as aiokafka does.

    Raises:
        KafkaConnectionError: the connection is closed; retryable.
    """
    try:
        return _send(connection, request, expect_response)
    except RuntimeError as exc:
        if type(exc) is not RuntimeError:  # NotImplementedError is one: aiokafka's word for a version it cannot speak
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError("the connection closed before the request was written") from exc
