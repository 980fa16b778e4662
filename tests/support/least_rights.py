"""The rights that README says a worker needs, read from its table, as a broker takes them."""

import re
from collections.abc import Iterable
from pathlib import Path

from confluent_kafka.admin import AclOperation, ResourceType

from topics.spec import output_names

README = Path(__file__).parents[2] / "README.md"

Row = tuple[str, str, str]
"""Resource, operation, and what happens without it."""
Right = tuple[ResourceType, str, AclOperation]


def readme_rows() -> list[Row]:
    """Return the rows of README's table of rights."""
    (table,) = re.findall(r"<!-- rights:begin -->(.*?)<!-- rights:end -->", README.read_text(), re.DOTALL)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]
    return [(resource, operation, without) for resource, operation, _, without in cells]


ROWS = readme_rows()


def rights(topic: str, group: str, task: str, rows: Iterable[Row] = ROWS) -> list[Right]:
    """Return the rights of these rows for one task over one topic."""
    resources = {
        "each input topic": [(ResourceType.TOPIC, topic)],
        "the group": [(ResourceType.GROUP, group)],
        "each output topic": [(ResourceType.TOPIC, name) for name in output_names(topic, task).values()],
    }
    return [(*one, AclOperation[operation]) for resource, operation, _ in rows for one in resources[resource]]
