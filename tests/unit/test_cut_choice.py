"""Which blocks a device trains itself."""

import msgspec
import pytest

from edge_agent.core.cut_choice import CutChoice
from edge_agent.core.split_settings import SplitSettings
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.split_plan import WHOLE, Cut
from fleet_protocol.task_description import TaskDescription
from tests.support.split_task import DEEP, EARLY, TASK

NEEDS = {WHOLE.name: 300, EARLY.name: 200, DEEP.name: 100}
"""Bytes, of the worker."""


def choice(limit_bytes: int, cut: str = "auto") -> CutChoice:
    def memory_bytes(_: TaskDescription, cut: Cut) -> int:
        return NEEDS[cut.name]

    return CutChoice({TASK.task: SplitSettings(cut)}, limit_bytes, memory_bytes)


@pytest.mark.parametrize(
    ("limit_bytes", "chosen"),
    [(300, WHOLE), (299, EARLY), (199, DEEP), (99, DEEP)],
    ids=["all fits", "all but the whole", "one fits", "none fits: what needs least is tried"],
)
def test_device_trains_as_much_as_fits_its_memory(limit_bytes, chosen) -> None:
    assert choice(limit_bytes).of(TASK) == chosen


def test_of_the_cuts_that_fit_the_one_that_sends_least_is_taken() -> None:
    assert TASK.split is not None
    narrow = msgspec.structs.replace(TASK.split.blocks[1], output_shape=[1])
    blocks = [TASK.split.blocks[0], narrow, *TASK.split.blocks[2:]]
    task = msgspec.structs.replace(TASK, split=msgspec.structs.replace(TASK.split, blocks=blocks))
    assert choice(250).of(task) == EARLY
    wide = msgspec.structs.replace(narrow, output_shape=[99])
    blocks = [TASK.split.blocks[0], wide, *TASK.split.blocks[2:]]
    task = msgspec.structs.replace(TASK, split=msgspec.structs.replace(TASK.split, blocks=blocks))
    assert choice(250).of(task) == DEEP


def test_what_a_round_has_found_too_large_is_not_tried_again() -> None:
    cuts = choice(10_000)
    assert cuts.of(TASK) == WHOLE
    assert cuts.note_too_large(TASK, WHOLE), "there is another"
    assert cuts.of(TASK) in (EARLY, DEEP)
    first = cuts.of(TASK)
    assert cuts.note_too_large(TASK, first)
    assert not cuts.note_too_large(TASK, cuts.of(TASK)), "nothing is left to try"


def test_task_that_is_published_anew_is_tried_as_if_nothing_were_known_of_it() -> None:
    cuts = choice(10_000)
    assert cuts.note_too_large(TASK, WHOLE)
    smaller = msgspec.structs.replace(TASK, training=msgspec.structs.replace(TASK.training, batch_size=1))
    assert cuts.of(smaller) == WHOLE
    assert cuts.note_too_large(smaller, WHOLE)
    assert cuts.of(smaller) != WHOLE


def test_owner_decides() -> None:
    assert choice(99, "off").of(TASK) == WHOLE
    assert choice(10_000, DEEP.name).of(TASK) == DEEP
    assert not choice(10_000, DEEP.name).note_too_large(TASK, DEEP), "what the owner wants is not replaced"
    with pytest.raises(ConfigurationError, match="no cut 'deeper'; the task has early, deep; write one"):
        choice(99, "deeper").of(TASK)


def test_task_without_blocks_is_the_devices_alone() -> None:
    undivided = msgspec.structs.replace(TASK, split=None)
    assert choice(1).of(undivided) == WHOLE
    assert not choice(1).note_too_large(undivided, WHOLE)
