"""Which shard a device belongs to: the same for everybody, and one more shard moves no more devices than it takes."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.shards import shard_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "shards.json").read_text())
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=48)
SHARDS = st.lists(NAMES, min_size=1, max_size=8, unique=True)
FLEET = [f"pi-{number}" for number in range(4000)]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['device']} of {len(vector['shards'])}")
def test_device_belongs_where_the_vectors_say(vector):
    assert shard_of(vector["device"], vector["shards"]) == vector["shard"]


@given(NAMES, SHARDS, st.randoms())
def test_order_of_the_shards_does_not_matter_nor_that_one_is_named_twice(device, shards, random):
    shuffled = random.sample([*shards, shards[0]], len(shards) + 1)
    assert shard_of(device, shuffled) == shard_of(device, shards)


@given(st.lists(NAMES, min_size=1, max_size=20), SHARDS, NAMES)
def test_one_more_shard_takes_devices_and_moves_no_other(devices, shards, added):
    for device in devices:
        before, after = shard_of(device, shards), shard_of(device, [*shards, added])
        assert after in {before, added}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_one_more_shard_takes_its_part_of_a_fleet(count):
    shards = [str(number) for number in range(count)]
    moved = sum(shard_of(device, shards) != shard_of(device, [*shards, "new"]) for device in FLEET)
    expected = len(FLEET) / (count + 1)
    deviation = (expected * count / (count + 1)) ** 0.5  # of a binomial distribution
    assert abs(moved - expected) < 5 * deviation


@pytest.mark.parametrize("count", [2, 4, 64])
def test_shards_have_about_as_many_devices_each(count):
    shards = [f"shard-{number}" for number in range(count)]
    sizes = Counter(shard_of(device, shards) for device in FLEET)
    expected = len(FLEET) / count
    assert set(sizes) == set(shards)
    assert all(abs(size - expected) < 5 * expected**0.5 for size in sizes.values())


def test_device_of_a_fleet_without_shards_is_nowhere():
    with pytest.raises(ValueError, match="empty"):
        shard_of("kitchen-pi", [])
