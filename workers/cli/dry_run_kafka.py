"""What the dry run says of the cluster: topics, rights and the group, from what a survey saw. Plain decisions."""

from collections.abc import Iterator, Mapping

from workers.cli.findings import Finding
from workers.cli.topics import faults
from workers.settings.model import Settings
from workers.stream.survey import READ, WRITE, GroupSeen, Survey, TopicSeen
from workers.stream.topic_admin import TopicState
from workers.task import output_topics

_MISSING = "UNKNOWN_TOPIC_OR_PARTITION"
_TOPIC_REFUSED = "TOPIC_AUTHORIZATION_FAILED"
_GROUP_REFUSED = "GROUP_AUTHORIZATION_FAILED"
_PRODUCER_REFUSED = "CLUSTER_AUTHORIZATION_FAILED"


def all_topics(settings: Settings) -> list[str]:
    """Return every topic of the configuration, each once."""
    return list(dict.fromkeys([*_inputs_of(settings), *_outputs_of(settings)]))


def _inputs_of(settings: Settings) -> list[str]:
    """Return the input topics of all tasks."""
    return [topic for task in settings.tasks.values() for topic in task.input]


def _outputs_of(settings: Settings) -> list[str]:
    """Return the output topics of all tasks, each once."""
    named = (
        name
        for task_name, task in settings.tasks.items()
        for topic in task.input
        for name in output_topics(topic, task_name, task).names()
    )
    return list(dict.fromkeys(named))


def topic_findings(
    settings: Settings, seen: Survey, states: Mapping[str, TopicState], config: str
) -> Iterator[Finding]:
    """Yield whether each topic is there and as its task needs it."""
    inputs, wrong = _inputs_of(settings), list(dict.fromkeys(faults(settings, states)))
    for name in [*inputs, *_outputs_of(settings)]:
        if unusable := _unusable(name, seen.topics.get(name), config, is_input=name in inputs):
            yield unusable
            continue
        about = f"topic {name}"
        own = [line.removeprefix(f"{name}: ") for line in wrong if line.startswith(f"{name}: ")]
        if own:
            yield Finding(
                about=about, state="failed", what="; ".join(own), todo="alter the topic, or the task's limits"
            )
        else:
            yield Finding(about=about, state="ok", what=_described(seen.topics[name], states.get(name)))


def _unusable(name: str, topic: TopicSeen | None, config: str, *, is_input: bool) -> Finding | None:
    """Return what is wrong with a topic that cannot be looked at, None when it can."""
    about = f"topic {name}"
    if topic is None or topic.error == _MISSING:
        more = " --inputs PARTITIONS" if is_input else ""
        todo = f"check the name, or `penstock topics create {config}{more}`"
        return Finding(about=about, state="failed", what="does not exist", todo=todo)
    if topic.error == _TOPIC_REFUSED:
        what = "does not exist, or this user may not see it"
        todo = f"check the name, and allow DESCRIBE and {'READ' if is_input else 'WRITE'} on it"
        return Finding(about=about, state="failed", what=what, todo=todo)
    if topic.error:
        return Finding(about=about, state="failed", what=topic.error, todo="look at the brokers, and try again")
    return None


def _described(topic: TopicSeen, state: TopicState | None) -> str:
    limit = state.max_message_bytes if state else None
    told = "limits not told" if limit is None else f"max.message.bytes {limit}"
    return f"{topic.partitions} partitions, {told}"


def read_finding(topic: str, seen: TopicSeen, refusal: str) -> Finding:
    """Return whether an input may be read; `refusal`: why a fetch was refused, '' when it was answered."""
    about = f"rights to read {topic}"
    if refusal or seen.may(READ) is False:
        what = refusal or "this user may not read it"
        return Finding(about=about, state="failed", what=what, todo=f"allow READ on the topic `{topic}`")
    return Finding(about=about, state="ok", what="a fetch was answered")


def write_findings(settings: Settings, seen: Survey) -> Iterator[Finding]:
    """Yield whether the outputs may be written, as far as it can be told without writing."""
    there = {name: topic for name in _outputs_of(settings) if (topic := seen.topics.get(name)) and not topic.error}
    if refused := [name for name, topic in there.items() if topic.may(WRITE) is False]:
        what = f"this user may not write {', '.join(refused)}"
        yield Finding(about="rights to write", state="failed", what=what, todo="allow WRITE on these topics")
    elif untold := [name for name, topic in there.items() if topic.may(WRITE) is None]:
        what = f"this broker does not tell, and nothing is written to find out: {', '.join(untold)}"
        yield Finding(about="rights to write", state="unknown", what=what)
    elif there:
        yield Finding(about="rights to write", state="ok", what=f"{len(there)} output topics")
    yield _producer(seen.producer_error)


def _producer(error: str) -> Finding:
    about = "idempotent producer"
    if not error:
        return Finding(about=about, state="ok", what="the cluster gives out a producer id")
    if error == _PRODUCER_REFUSED:
        what = "this user gets no producer id"
        return Finding(about=about, state="failed", what=what, todo="allow WRITE on the outputs, or IDEMPOTENT_WRITE")
    return Finding(about=about, state="unknown", what=f"no producer id: {error}")


def group_finding(group_id: str, group: GroupSeen) -> Finding:
    """Return whether this user may work in the group."""
    about = f"group {group_id}"
    may_read = group.may(READ)
    if group.error == _GROUP_REFUSED or may_read is False:
        todo = f"allow READ on the group `{group_id}`"
        return Finding(about=about, state="failed", what="this user may not join it", todo=todo)
    if group.error or may_read is None:
        return Finding(about=about, state="unknown", what=group.error or "this broker does not tell rights")
    return Finding(about=about, state="ok", what=f"may be joined; {group.members} members now")
