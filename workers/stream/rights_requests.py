"""Two of Kafka's requests in the versions that tell a user's rights (KIP-430); aiokafka 0.14 has neither.

Its Metadata ends at version 5, and asks the broker to create what does not exist (`auto.create.topics.enable` is on by
default); its DescribeGroups reads an answer of version 3 as if it were version 2, and so loses the rights at its end.
Fields as in Kafka's MetadataRequest.json and DescribeGroupsRequest.json.
"""

from typing import Any

from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String


class _Metadata8Response(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _Metadata8(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _Metadata8Response
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _DescribeGroups3(RequestStruct):
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class DescribeTopics(Request[MetadataRequest_v5 | _Metadata8]):
    """Metadata of these topics, with the rights where the broker knows them; never creates a topic."""

    API_KEY = 3

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[Any]) -> Any:
        """Return the request in the version that the broker and we know."""
        with_rights = (False, True) if request_struct_class is _Metadata8 else ()
        return request_struct_class(self._names, False, *with_rights)  # noqa: FBT003 - positions of the wire format


class DescribeGroup(Request[_DescribeGroups3]):
    """One group with the rights; a broker before Kafka 2.3 has no such version (NotImplementedError)."""

    API_KEY = 15

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id

    def build(self, request_struct_class: type[Any]) -> Any:
        """Return the request."""
        return request_struct_class([self._group_id], True)  # noqa: FBT003 - positions of the wire format
