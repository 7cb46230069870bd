"""How a task's devices train."""

from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.bundle_files import TRAIN_FILE, TRAIN_PER_SAMPLE_FILE
from fleet_protocol.configuration import PositiveInt
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_SETTING
from fleet_protocol.without_effect import UsedBy, check_used


class TrainingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a device does in one round of training."""

    steps: PositiveInt
    """Mini-batches per round."""
    batch_size: PositiveInt
    """Samples per mini-batch, drawn from those that are stored."""
    learning_rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Step size of `optimiser`. Left out or 0 in `task.toml`, it is found at export
    (docs/decisions/learning-rate-found-at-export.md); a bundle always has one."""
    optimiser: Literal["sgd", "momentum", "nesterov", "adam", "adamw"] = "sgd"
    """The training graph is made for it. Its state begins anew in every round."""
    momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9
    """For `momentum` and `nesterov`."""
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """L2 penalty; decoupled with `adamw`."""
    gradient_clip: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Largest Euclidean norm of a step's gradient, or of each sample's with `per_sample_gradients`; 0: no limit."""
    proximal: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """FedProx's coefficient (Li et al. 2020): pulls towards the version that the round began with."""
    adaptive_proximal: bool = False
    """`proximal` is what a device begins with: 0.1 more where its loss has risen since its last round, 0.1 less where
    it has fallen five times in a row (docs/drift.md)."""
    correction: Literal["off", "scaffold"] = "off"
    """`scaffold` (Karimireddy et al. 2020): to each step's gradient a device adds the direction that the fleet moves
    in, less its own of its last round (docs/drift.md)."""
    per_sample_gradients: bool = False
    """Clip each sample's gradient instead of their mean."""
    epochs_per_round: Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)] = 5
    """A round goes over a device's samples at most so often: where these are few, it has fewer `steps`. 0: no limit."""
    maximum_epochs: Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)] = 300
    """All rounds of a device go over the same samples at most so often; then it waits for new ones. 0: no limit."""
    validation_share: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1
    """A device never trains on this share of its samples, and does not send a round that makes them worse
    (docs/decisions/knowing-when-to-stop.md)."""

    @property
    def has_proximal(self) -> bool:
        """Whether a device may be pulled towards the version that its round began with."""
        return self.proximal > 0 or self.adaptive_proximal

    @property
    def remembers_drift(self) -> bool:
        """Whether a device keeps something of a round to correct the next one's drift by."""
        return self.adaptive_proximal or self.correction != "off"

    @property
    def graph_file(self) -> str:
        """The training graph that a device runs."""
        return TRAIN_PER_SAMPLE_FILE if self.per_sample_gradients else TRAIN_FILE


USED_BY: Final[UsedBy] = {"momentum": ("optimiser", ("momentum", "nesterov"))}
"""Settings that mean something only where another one has one of these values."""


def check_training(plan: TrainingPlan, name: str) -> None:
    """Raise `ConfigurationError` if a setting has no effect; `name` is the file."""
    check_used(plan, USED_BY, "training", name)
    if plan.per_sample_gradients and not plan.gradient_clip:
        raise ConfigurationError(
            f"{name}: training.per_sample_gradients is true, and training.gradient_clip 0, so that no sample's gradient"
            " is clipped; write a gradient_clip above 0, or leave per_sample_gradients out"
        )
