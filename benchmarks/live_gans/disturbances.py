"""What happens to a fleet in the middle of its work."""

from collections.abc import Callable
from typing import Final

from tests.support.broker import Broker
from tests.support.helper import SplitAgent
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until

PATIENCE_SECONDS: Final = 600.0

Disturbance = Callable[[SplitFleet, Broker], None]


def kill_device(fleet: SplitFleet, _broker: Broker) -> None:
    """A device that is training is killed, and started again."""
    device = until(lambda: _training(fleet), "a device trains", PATIENCE_SECONDS)
    assert device
    device.kill()
    device.start()


def kill_helper(fleet: SplitFleet, _broker: Broker) -> None:
    """The one helper is killed in the middle of sessions, and started again."""
    (helper,) = fleet.helpers
    begun = helper.status().get("steps", 0)
    until(lambda: helper.status().get("steps", 0) > begun, "steps go through the helper", PATIENCE_SECONDS)
    helper.kill()
    helper.start()


def kill_broker(_fleet: SplitFleet, broker: Broker) -> None:
    """The broker is killed, and started again."""
    broker.kill()
    broker.start()


def _training(fleet: SplitFleet) -> SplitAgent | None:
    return next((each for each in fleet.agents if each.status().get("state") == "training"), None)


IN_ORDER: Final[tuple[Disturbance, ...]] = (kill_device, kill_helper, kill_broker)
