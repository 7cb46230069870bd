"""What `task.toml` leaves out beside `[posterior]`."""

from pathlib import Path

import msgspec
import pytest

from fleet_protocol.update_plan import UpdatePlan
from workbench.export.recipe.posterior import with_usual_posterior
from workbench.export.recipe.task_file import TaskFile

LEFT_OUT = """
task = "doors"
title = "Doors"
[input]
shape = [4]
minimum = 0.0
maximum = 1.0
[label]
classes = 2
[training]
steps = 5
batch_size = 4
[update]
keep_fraction = 0.2
{update}
[posterior]
"""


def read(update: str = "") -> TaskFile:
    text = LEFT_OUT.format(update=update)
    return with_usual_posterior(msgspec.toml.decode(text, type=TaskFile), text, Path("task.toml"))


def test_what_device_and_coordinator_need_to_keep_the_same_factor_is_there() -> None:
    task = read()
    assert task.update == UpdatePlan(0.2, quantisation="int8", selection="top_k_per_tensor", feedback="ef21")
    assert (task.aggregation.strategy, task.training.optimiser, task.loss) == ("posterior", "sgd", "cross_entropy")


@pytest.mark.parametrize("said", [{"quantisation": "ternary"}, {"selection": "dense", "quantisation": "float32"}])
def test_what_it_says_stays(said: dict[str, str]) -> None:
    lines = "\n".join(f'{setting} = "{value}"' for setting, value in said.items())
    assert {setting: getattr(read(lines).update, setting) for setting in said} == said
