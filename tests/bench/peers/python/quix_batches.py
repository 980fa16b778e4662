"""Quix Streams with a sink that asks for a whole checkpoint at once, N threads wide, and writes before it commits.

Its documented `sdf.apply` works on one record at a time for each process. At least once; a barrier for each batch.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import requests
from chat import BOOTSTRAP, GROUP, RETRY_S, SLOTS, TIMEOUT_S, TOPIC_IN, TOPIC_OUT, URL, answer, question
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

mine = threading.local()


def call(text: str) -> str:
    """Return the model's answer, however long it takes; a session for each thread."""
    if not hasattr(mine, "session"):
        mine.session = requests.Session()
        mine.session.headers["Content-Type"] = "application/json"
    while True:
        try:
            response = mine.session.post(URL, data=question(text), timeout=TIMEOUT_S)
            if response.status_code == 200:
                return answer(response.content)
        except requests.RequestException:
            pass
        time.sleep(RETRY_S)


class Enrichment(BatchingSink):
    """Asks for all partitions of a checkpoint together."""

    def __init__(self, app: Application) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(SLOTS)
        self.producer = app.get_producer()
        self.producer.__enter__()

    def write(self, batch: SinkBatch) -> None:
        """Ask and write, one partition; `flush` does it for all."""
        self._enrich(list(batch))

    def flush(self) -> None:
        """Ask and write what the checkpoint holds."""
        try:
            self._enrich([one for batch in self._batches.values() for one in batch])
        finally:
            self._batches.clear()

    def _enrich(self, records: list[Any]) -> None:
        answers = self.pool.map(call, [one.value["text"] for one in records])
        for one, result in zip(records, answers, strict=True):
            self.producer.produce(TOPIC_OUT, orjson.dumps({"id": one.value["id"], "result": result}), key=one.key)
        if records:
            self.producer.flush()


def main() -> None:
    """Work for ever."""
    app = Application(
        broker_address=BOOTSTRAP,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        loglevel="WARNING",
        use_changelog_topics=False,
        commit_interval=1.0,
        commit_every=4 * SLOTS,
        producer_extra_config={"linger.ms": 5, "acks": "all"},
    )
    topic = app.topic(TOPIC_IN, value_deserializer="json", key_deserializer="bytes")
    app.dataframe(topic).sink(Enrichment(app))
    app.run()


if __name__ == "__main__":
    main()
