"""The power fails at any moment of a wake: each change of a device's databases has happened whole, or not at all.

`python -m tests.soak.power_cuts` cuts at every byte.
"""

from pathlib import Path

from tests.support.device_power_cuts import (
    check_cuts_of_agent_db,
    check_cuts_of_samples,
    steps_of_a_wake,
    steps_of_samples,
)
from tests.support.power_cuts import some_bytes


def test_residual_outbox_and_number_change_together_or_not_at_all(tmp_path: Path) -> None:
    steps = steps_of_a_wake(tmp_path / "agent.db")
    for step in steps:
        assert step.states[0] != step.states[1] or step.name == "before it is sent"
        check_cuts_of_agent_db(step, tmp_path, some_bytes)
    assert [row.reason for row in steps[-1].states[1][0].returned] == ["outbox_full"]


def test_stored_samples_are_what_they_were_at_some_moment(tmp_path: Path) -> None:
    steps = steps_of_samples(tmp_path / "samples.db")
    history = [[], *(step.states[1] for step in steps)]
    check_cuts_of_samples(steps[-1], history, tmp_path, some_bytes, lost=len(steps[-5].before[1]))
