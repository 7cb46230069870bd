"""What of a device's error feedback goes into a round of another generation."""

import msgspec
import pytest

from edge_agent.core.generations import carried_over
from edge_agent.core.outbox import OutboxRow
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.solved_head import SolvedHead
from workbench.recipe_folder import find_recipe

OLD, NEW = (OutboxRow(number, 6, "digits", "0b" * 32, 3, b"", b"payload", generation=number) for number in (1, 2))


TASK = parse_description((find_recipe("digits") / "bundle" / DESCRIPTION_FILE).read_bytes())


def task_with(feedback):
    update = msgspec.structs.replace(TASK.update, feedback=feedback)
    return msgspec.structs.replace(TASK, update=update)


@pytest.mark.parametrize("feedback", ["residual", "momentum"])
@pytest.mark.parametrize("generation", [1, 2])
def test_what_compression_left_out_outlives_a_generation(feedback, generation):
    assert carried_over(task_with(feedback), generation, b"state", 1, [OLD, NEW]) == (b"state", [OLD, NEW])


def test_estimate_of_ef21_begins_anew_and_takes_back_only_what_was_added_to_it():
    assert carried_over(task_with("ef21"), 1, b"state", 1, [OLD, NEW]) == (b"state", [OLD])
    assert carried_over(task_with("ef21"), 2, b"state", 1, [OLD, NEW]) == (b"", [NEW])


def test_what_was_sent_for_a_solved_head_counts_in_its_own_generation_alone():
    task = msgspec.structs.replace(TASK, solved_head=SolvedHead())
    assert carried_over(task, 1, b"sent", 1, [NEW]) == (b"sent", [])
    assert carried_over(task, 2, b"sent", 1, [OLD]) == (b"", [])
