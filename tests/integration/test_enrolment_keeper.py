"""When a device enrols again: after the coordinator has lost it, and not as often as somebody replays that."""

import asyncio
import contextlib

from edge_agent.shell.connection.enrolment import LET_IN_SECONDS, EnrolmentKeeper
from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_protocol.envelope import digest
from fleet_protocol.kinds import Outcome, Receipt
from tests.support.jumping_clock import run


class AcceptingCoordinator:
    """Accepts each enrolment at once; `enrolled_at` are the times."""

    def __init__(self, database: DeviceDatabase) -> None:
        self.enrolled_at: list[float] = []
        self.keeper = EnrolmentKeeper(
            database, sign=self._sign, publish=self._publish, while_enrolled=asyncio.Event().wait
        )

    def _sign(self) -> bytes:
        return f"enrolment {len(self.enrolled_at)}".encode()

    async def _publish(self, signed: bytes) -> None:
        self.enrolled_at.append(asyncio.get_running_loop().time())
        self.keeper.receive(Receipt(digest(signed), Outcome.ACCEPTED, "", "", 0, 0))


def test_device_enrols_again_at_once_but_not_as_often_as_an_old_refusal_is_replayed(tmp_path):
    async def scenario():
        database = DeviceDatabase(tmp_path / "agent.db")
        coordinator = AcceptingCoordinator(database)
        keeping = asyncio.create_task(coordinator.keeper.keep())
        await asyncio.sleep(2 * LET_IN_SECONDS)
        for _ in range(1000):
            coordinator.keeper.enrol_again()
            await asyncio.sleep(LET_IN_SECONDS / 100)
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        database.close()
        first, again, *more = coordinator.enrolled_at
        assert (first, again) == (0, 2 * LET_IN_SECONDS)
        assert len(more) <= 10

    run(scenario())


def test_answer_of_the_shard_that_was_left_lets_nobody_into_the_new_one(tmp_path):
    async def scenario():
        database = DeviceDatabase(tmp_path / "agent.db")
        sent: list[bytes] = []

        async def publish(signed: bytes) -> None:
            sent.append(signed)

        keeper = EnrolmentKeeper(database, sign=lambda: b"an enrolment", publish=publish, while_enrolled=publish)
        keeping = asyncio.create_task(keeper.keep())
        await asyncio.sleep(0.1)
        assert sent == [b"an enrolment"]
        keeper.begin_anew()
        assert not keeper.receive(Receipt(digest(sent[0]), Outcome.ACCEPTED, "", "", 0, 0))
        assert not database.is_enrolled()
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        database.close()

    run(scenario())
