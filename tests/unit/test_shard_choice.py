"""Where a device goes: at once the first time, and seldom where manifests contradict each other."""

from edge_agent.core.shard_choice import (
    FIRST_STAY_SECONDS,
    LAST_STAY_SECONDS,
    SETTLED_SECONDS,
    ShardChoice,
)
from fleet_protocol.shards import shard_of

DEVICE = "kitchen-pi"
OWN = shard_of(DEVICE, ["0", "1"])
OTHER = {"0": "1", "1": "0"}[OWN]
DAY = 86400.0


def test_device_moves_at_once_where_its_manifest_names_another_shard():
    choice = ShardChoice(DEVICE, OTHER)
    assert choice.due_at is None
    assert choice.hear(["0", "1"])
    assert choice.due_at < 0
    assert choice.wanted == OWN
    choice.moved(10.0)
    assert choice.due_at is None
    assert not choice.hear(["0", "1"])


def test_manifest_that_names_no_shards_moves_nobody():
    choice = ShardChoice(DEVICE, "elsewhere")
    assert not choice.hear([])
    assert choice.due_at is None


def test_device_whose_shard_is_no_shard_of_the_fleet_goes_where_it_belongs():
    choice = ShardChoice(DEVICE, "elsewhere")
    assert choice.hear(["0", "1"])
    assert choice.wanted == OWN


def test_device_that_hears_again_of_its_shard_before_it_may_move_stays():
    choice = ShardChoice(DEVICE, OTHER)
    choice.hear(["0", "1"])
    choice.moved(0.0)
    assert choice.hear([OTHER])
    assert choice.due_at == FIRST_STAY_SECONDS
    assert not choice.hear(["0", "1"])
    assert choice.due_at is None


def moves(days: float) -> list[float]:
    """When a device moves that hears two manifests by turns all the time."""
    choice, now, times = ShardChoice(DEVICE, OTHER), 0.0, []
    while now < days * DAY:
        choice.hear(["0", "1"] if len(times) % 2 == 0 else [OTHER])
        now = max(now, choice.due_at)
        times.append(now)
        choice.moved(now)
    return times


def test_contradicting_manifests_move_a_device_some_thirty_times_on_the_first_day_and_hourly_then():
    times = moves(2)
    assert times[:4] == [0.0, 60.0, 180.0, 420.0]
    assert sum(moment < DAY for moment in times) <= 30
    assert sum(DAY <= moment < 2 * DAY for moment in times) <= DAY / LAST_STAY_SECONDS


def test_who_has_stayed_long_moves_at_once_and_stays_briefly():
    choice = ShardChoice(DEVICE, OTHER)
    for now in (0.0, 60.0, 180.0):
        choice.hear([OWN] if choice.wanted == OTHER else [OTHER])
        choice.moved(now)
    later = 180.0 + SETTLED_SECONDS
    choice.hear([OTHER] if choice.wanted == OWN else [OWN])
    assert choice.due_at <= later
    choice.moved(later)
    choice.hear([OTHER] if choice.wanted == OWN else [OWN])
    assert choice.due_at == later + FIRST_STAY_SECONDS
