"""Sample-level differential privacy on the device: the table `[privacy.samples]` of a task (docs/privacy.md)."""

from typing import Annotated, Final

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_SETTING
from fleet_protocol.privacy.renyi import (
    Mechanism,
    StepsTaken,
    divergences_of,
    epsilon_of,
    noise_for,
    steps_within,
)

LEAST_NOISE: Final = 0.3
"""Below it the formulas' orders say nothing useful, and the noise hides nothing."""
MOST_NOISE: Final = 1000.0
"""Above it nothing is learned."""
MOST_CLIP: Final = 1e6
"""Clip times noise times samples stays far from float32's end."""

Epsilon = Annotated[float, msgspec.Meta(gt=0, le=100)]
Delta = Annotated[float, msgspec.Meta(ge=1e-15, le=0.01)]


class SamplePrivacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """No device sends what tells more about one of its samples than `epsilon` and `delta` allow, over all rounds."""

    epsilon: Epsilon
    """The most that all rounds together may tell of a sample: whatever is concluded from them would have been at most
    exp(epsilon) times as likely without it, but for `delta`. A sample that has cost so much is trained on no more."""
    delta: Delta = 1e-5
    """The probability for which `epsilon` does not speak; smaller than one in a device's number of samples."""
    sampling_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    """Each step takes each sample with this probability, by itself. `batch_size` is then only how many rows are
    computed at once."""
    clip: Annotated[float, msgspec.Meta(gt=0, le=MOST_CLIP)] = 1.0
    """Largest Euclidean norm of one sample's gradient: larger ones are scaled down to it."""
    rounds: Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)] = 0
    """In how many rounds of a device a sample may be; export finds the noise from it. Left out: `noise_multiplier` is
    written, and rounds end where it has cost `epsilon`."""
    noise_multiplier: Annotated[float, msgspec.Meta(ge=0, le=MOST_NOISE)] = 0.0
    """The standard deviation of the noise that each step adds to the sum of gradients, in units of `clip`. Left out, it
    is found at export; a bundle always has one."""
    owners_choose: bool = False
    """Let each device's owner choose no noise, or more than the task's (docs/privacy.md). Updates say their noise where
    it is not the task's, and count by it."""

    @property
    def mechanism(self) -> Mechanism:
        """One step."""
        return Mechanism(self.noise_multiplier, self.sampling_rate)

    @property
    def told_noise(self) -> float:
        """The noise multiplier as updates say it, to four digits: no weight differs by more."""
        return float(f"{self.noise_multiplier:.4g}")

    def epsilon_after(self, steps: int, delta: float | None = None) -> float:
        """What so many steps tell of a sample that was there in all of them; at the task's own `delta`, or another."""
        return epsilon_of(divergences_of([StepsTaken(self.mechanism, steps)]), delta or self.delta)

    def epsilon_told(self, rounds: int, steps: int) -> float:
        """What so many rounds of a device, of so many `steps`, have told of a sample at most: it is in no more of them
        than `epsilon` allows.
        """
        return self.epsilon_after(self.steps_told(rounds, steps)) if rounds else 0.0

    def steps_told(self, rounds: int, steps: int) -> int:
        """In how many steps of so many rounds a sample is at most."""
        return min(rounds, self.most_steps() // steps) * steps

    def most_steps(self) -> int:
        """How many steps a sample may be part of."""
        return steps_within(self.mechanism, self.epsilon, self.delta)


def with_noise(plan: SamplePrivacy, steps: int, name: str) -> SamplePrivacy:
    """The plan as a bundle has it, with the noise that `rounds` of so many `steps` need.

    Raises:
        ConfigurationError: both or neither of `rounds` and `noise_multiplier` are given, or no noise suffices.
    """
    if bool(plan.rounds) == bool(plan.noise_multiplier):
        raise ConfigurationError(
            f"{name}: privacy.samples has {'both' if plan.rounds else 'neither'} `rounds` and `noise_multiplier`; write"
            " `rounds`, from which the noise follows, or the noise itself"
        )
    if plan.noise_multiplier:
        return plan
    noise = noise_for(plan.rounds * steps, plan.sampling_rate, plan.epsilon, plan.delta, (LEAST_NOISE, MOST_NOISE))
    if noise is None:
        raise ConfigurationError(
            f"{name}: privacy.samples: {plan.rounds} rounds of {steps} steps cost more than epsilon {plan.epsilon:g}"
            f" even with a noise_multiplier of {MOST_NOISE:g}; allow fewer rounds, a smaller sampling_rate, or a larger"
            " epsilon"
        )
    return msgspec.structs.replace(plan, rounds=0, noise_multiplier=noise)


def check_noise(plan: SamplePrivacy, steps: int, name: str) -> None:
    """Check what a bundle says of noise, for rounds of so many `steps`.

    Raises:
        ConfigurationError: it has none, or a single round would cost more than `epsilon`.
    """
    if not plan.noise_multiplier >= LEAST_NOISE:
        raise ConfigurationError(
            f"{name}: privacy.samples.noise_multiplier is {plan.noise_multiplier:g}; at least {LEAST_NOISE:g} is"
            " needed: write more, or leave it out and write `rounds`"
        )
    if (most := plan.most_steps()) < steps:
        raise ConfigurationError(
            f"{name}: one round of {steps} steps tells more of a sample than epsilon {plan.epsilon:g} allows, which"
            f" {most} steps do; raise noise_multiplier or epsilon, or lower steps or sampling_rate"
        )
