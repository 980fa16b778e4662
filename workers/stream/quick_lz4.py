"""LZ4 as Kafka's own clients write it: by the fast compressor.

Kafka calls its default level 9 and means LZ4's fast compressor by it (`Lz4BlockOutputStream`, KIP-390). aiokafka hands
the 9 to LZ4, where it is the slow compressor (HC): several times the CPU for two bytes less of a hundred, in what took
a third of producing a record.

aiokafka has no setting for it, so one name beside its batch builder is replaced; the version is pinned, and a test
holds it.
"""

import sys
from functools import partial

from aiokafka.codec import lz4_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder

encode = partial(lz4_encode, level=1)
"""Return an LZ4 frame."""


def use() -> None:
    """Let all producers of this process compress so, from now on."""
    module = sys.modules[DefaultRecordBatchBuilder.__module__]  # compiled, or in Python where that is missing
    module.lz4_encode = encode  # type: ignore[attr-defined]
