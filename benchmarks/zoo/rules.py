"""The rules that the default is made of, and what a recipe gets in the place of each: what `--without` leaves out."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import patch

from edge_agent.training.feedback import ErrorFeedback, recall
from fleet_protocol.aggregation_plan import SMALLEST_LIMIT_OF_NORM
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

Settings = Mapping[str, Any]
"""Of task.toml: values, and tables of values."""

NO_BOUND = 1e9
BOUNDING = ("broker_coordinator.aggregation.bounds", "broker_coordinator.consumers.update")
"""Where one device's weight is bounded."""


def _everywhere(_: TaskDescription) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """`settings` take its place in the default under test. What no setting leaves out is `replaced` while a case runs,
    by the name that it is looked up with. `works_in` says in which tasks it does something, by their usual bundle.
    """

    settings: Settings = field(default_factory=dict)
    replaced: Mapping[str, object] = field(default_factory=dict)
    works_in: Callable[[TaskDescription], bool] = _everywhere

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Replace what it replaces in this process, until the end of the block."""
        with ExitStack() as stack:
            for name, instead in self.replaced.items():
                stack.enter_context(patch(name, instead))
            yield


def merged(settings: Settings, changes: Settings) -> dict[str, Any]:
    """`settings` with `changes`, table by table."""
    return {
        **settings,
        **{
            key: merged(settings.get(key, {}), value) if isinstance(value, Mapping) else value
            for key, value in changes.items()
        },
    }


def _forgetful(plan: UpdatePlan, _: bytes, parameters: int, life: int, _factor: object) -> ErrorFeedback:
    """A device's error feedback that begins anew in every round."""
    return recall(plan, b"", parameters, life)


def _has_classes(task: TaskDescription) -> bool:
    return task.label.kind == "class"


def _has_large_model(task: TaskDescription) -> bool:
    return task.largest_delta_norm > SMALLEST_LIMIT_OF_NORM


def _can_do_unscaled(task: TaskDescription) -> bool:
    """Missing readings need the fleet's scale."""
    return task.scaling.is_awaited and task.input.missing == "refuse"


RULES: Final[Mapping[str, Rule]] = {
    "scaling": Rule({"scaling": {"inputs": "off", "targets": "off"}}, works_in=_can_do_unscaled),
    "found-rate": Rule({"training": {"learning_rate": 0.05}}),
    "device-momentum": Rule({"training": {"optimiser": "sgd"}}),
    "balanced-loss": Rule({"loss": "cross_entropy"}, works_in=_has_classes),
    "epochs-per-round": Rule({"training": {"epochs_per_round": 0}}),
    "maximum-epochs": Rule({"training": {"maximum_epochs": 0}}),
    "validation": Rule({"training": {"validation_share": 0.0}}),
    "plain-steps": Rule({"aggregation": {"server_optimiser": "grafted"}}),
    "buffer-follows-fleet": Rule({"aggregation": {"buffer_size": 4}}),
    "mean-of-versions": Rule({"aggregation": {"averaged_versions": 1}}),
    "staleness-weights": Rule({"aggregation": {"staleness_weighting": "constant"}}),
    "norm-follows-model": Rule({"aggregation": {"max_delta_norm": 100.0}}, works_in=_has_large_model),
    "norm-of-others": Rule(replaced={f"{module}.NORM_FACTOR": NO_BOUND for module in BOUNDING}),
    "samples-of-others": Rule(replaced={f"{module}.SAMPLES_FACTOR": NO_BOUND for module in BOUNDING}),
    "guard": Rule(replaced={"broker_coordinator.aggregation.collapse.LOSS_GROWN": math.inf}),
    "temper-on-harm": Rule(replaced={"broker_coordinator.aggregation.harm.LOST": math.inf}),
    "error-feedback": Rule(replaced={"edge_agent.training.compression.recall": _forgetful}),
    "sparse-updates": Rule({"update": {"keep_fraction": 1.0, "quantisation": "float32", "selection": "dense"}}),
    "lossy-versions": Rule({"downlink": {"differences": "off"}}),
}
"""Under the names that `--without` takes. `sparse-updates` and `lossy-versions` are there for bytes: what they cost."""
