"""What the group's coordinator meets between two generations, when nobody fetches."""

from aiokafka.errors import KafkaError

from tests.support.memory import Rig, until


async def test_an_error_between_generations_is_taken() -> None:
    """The coordinator joins no more until a fetch has taken its error, so the pump fetches at a shut gate too."""
    async with Rig() as rig:
        await rig.assign(0)
        await rig.revoke()
        rig.consumer.errors.append(KafkaError("FENCED_INSTANCE_ID, to aiokafka an unknown error"))
        await until(lambda: not rig.consumer.errors)
        assert not rig.assignment.settled
        rig.write(0, range(10))
        await rig.assign(0)
        await until(lambda: rig.offsets_done() == list(range(10)))
