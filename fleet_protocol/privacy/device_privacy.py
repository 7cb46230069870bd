"""Device-level differential privacy at the coordinator: the table `[privacy.devices]`, and what it excludes. Pure."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.adaptive_clip import CLIP_RANGE, MOST_SHARE_DEVIATION, AdaptiveClip, share_deviation
from fleet_protocol.privacy.banded_noise import MOST_BANDS, Banded, best_bands
from fleet_protocol.privacy.mask_plan import LARGEST_CLIP, SMALLEST_CLIP
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken, divergences_of, epsilon_of, noise_for
from fleet_protocol.privacy.sample_privacy import LEAST_NOISE, MOST_NOISE, Delta, Epsilon
from fleet_protocol.privacy.tree_noise import Tree
from fleet_protocol.sending_plan import ALWAYS

if TYPE_CHECKING:
    from fleet_protocol.task_description import TaskDescription

MOST_VERSIONS: Final = 10_000
"""What a start counts the noise for in a tenth of a second."""
Versions = Annotated[int, msgspec.Meta(ge=1, le=MOST_VERSIONS)]
UPDATE_NAME: Final = "update"


class DevicePrivacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All versions together tell no more of one device than `epsilon` and `delta` allow (docs/privacy.md)."""

    epsilon: Epsilon
    """The most that all versions together may tell of a device: whatever is concluded from them would have been at most
    exp(epsilon) times as likely without its updates, but for `delta`."""
    clip: Annotated[float, msgspec.Meta(ge=SMALLEST_CLIP, le=LARGEST_CLIP)]
    """Largest Euclidean norm of one device's update: longer ones are scaled down to it. With `adaptive_clip`, that of
    the first version."""
    versions: Versions
    """How many versions the task is planned for; it makes no more."""
    at_most: Versions
    """So many updates of one device count in all."""
    versions_between: Versions = 1
    """Between two updates of one device that count, so many versions are made at least: 1 if each version may have
    one of its updates."""
    delta: Delta = 1e-5
    """The probability for which `epsilon` does not speak; smaller than one in the fleet's number of devices."""
    noise: Literal["banded", "tree", "independent"] = "banded"
    """`banded`: correlated over versions, so that later noise takes back a part of earlier noise. For comparison:
    `tree`, that of a binary tree of sums, and `independent`, where each version has its own."""
    bands: Annotated[int, msgspec.Meta(ge=0, le=MOST_BANDS)] = 0
    """For `banded`: of so many versions, noise is correlated. Left out, it is found at export; a bundle has it."""
    noise_multiplier: Annotated[float, msgspec.Meta(ge=0, le=MOST_NOISE)] = 0.0
    """The standard deviation of the noise in units of what one device can move all sums together by. Found at export.
    """
    adaptive_clip: AdaptiveClip | None = None

    @property
    def largest_norm(self) -> float:
        """Of an update as it leaves its device."""
        return self.adaptive_clip.at_most if self.adaptive_clip else self.clip

    def clip_after(self, kept: float | None) -> float | None:
        """That of the version after one with which this was kept, where it follows norms; None where it is fixed."""
        return None if self.adaptive_clip is None else self.clip if kept is None else kept

    @property
    def sensitivity(self) -> float:
        """What one device can move all sums by, in units of `clip`, as the noise counts it."""
        return self.correlation.sensitivity(self.versions, self.at_most, self.versions_between)

    @property
    def correlation(self) -> Banded | Tree:
        """Whose z are in the noise of which version."""
        return Tree() if self.noise == "tree" else Banded(self.bands)

    @property
    def deviation_in_clips(self) -> float:
        """The standard deviation of the independent noise that a version's is made of, of each entry of the sum, in
        units of the clip.
        """
        return self.noise_multiplier * self.sensitivity

    def epsilon_after(self, versions: int) -> float:
        """What so many versions have told of a device at most."""
        if not versions:
            return 0.0
        return epsilon_of(divergences_of([StepsTaken(self.mechanism_of(versions), 1)]), self.delta)

    def mechanism_of(self, versions: int) -> Mechanism:
        """The one that so many versions are together, of sensitivity 1."""
        moved = self.correlation.sensitivity(versions, self.at_most, self.versions_between)
        return Mechanism(self.noise_multiplier * self.sensitivity / moved, 1.0)


def with_device_noise(plan: DevicePrivacy, name: str) -> DevicePrivacy:
    """The plan as a bundle has it, with the noise that it needs.

    Raises:
        ConfigurationError: no noise suffices, or the noise is written.
    """
    if plan.noise_multiplier:
        raise ConfigurationError(
            f"{name}: privacy.devices.noise_multiplier is {plan.noise_multiplier:g}; leave it out, as it follows from"
            " epsilon, delta and the limits"
        )
    if plan.noise != "banded" and plan.bands > 1:
        raise ConfigurationError(
            f"{name}: privacy.devices.bands is {plan.bands}, and it is for noise 'banded', not {plan.noise!r};"
            " leave it out"
        )
    noise = noise_for(1, 1.0, plan.epsilon, plan.delta, (LEAST_NOISE, MOST_NOISE))
    if noise is None:
        raise ConfigurationError(
            f"{name}: privacy.devices.epsilon is {plan.epsilon:g} at delta {plan.delta:g}, which even a"
            f" noise_multiplier of {MOST_NOISE:g} exceeds; write a larger epsilon or delta"
        )
    bands = 1
    if plan.noise == "banded":
        bands = plan.bands or best_bands(plan.versions, plan.at_most, plan.versions_between)
    return msgspec.structs.replace(plan, noise_multiplier=noise, bands=bands)


def check_device_private_task(task: "TaskDescription", plan: DevicePrivacy, name: str) -> None:
    """Check that nothing else of a task tells of single devices what `[privacy.devices]` promises to hide.

    Raises:
        ConfigurationError: what contradicts it, and what to write.
    """
    for holds, otherwise in (*_rules_of_plan(plan), *_rules_of_task(task, plan)):
        if not holds:
            raise ConfigurationError(f"{name}: [privacy.devices] {otherwise}")


def _rules_of_plan(plan: DevicePrivacy) -> list[tuple[bool, str]]:
    return [
        (
            plan.noise_multiplier >= LEAST_NOISE and plan.bands >= 1,
            f"has noise_multiplier {plan.noise_multiplier:g} and bands {plan.bands}, at least {LEAST_NOISE:g} and 1 are"
            " needed; export again",
        ),
        (
            plan.bands <= plan.versions,
            f"has bands {plan.bands} of {plan.versions} versions; leave bands out",
        ),
        (
            plan.epsilon_after(plan.versions) <= plan.epsilon,
            f"promises epsilon {plan.epsilon:g}, and its noise of {plan.noise_multiplier:g} keeps"
            f" {plan.epsilon_after(plan.versions):.4g}; export again",
        ),
        *(_rules_of_clip(plan.clip, plan.adaptive_clip) if plan.adaptive_clip else ()),
    ]


def _rules_of_clip(first: float, adaptive: AdaptiveClip) -> list[tuple[bool, str]]:
    return [
        (
            adaptive.at_least <= first <= adaptive.at_most,
            f"begins with clip {first:g}, and adaptive_clip.at_most = {adaptive.at_most:g} lets it be from"
            f" {adaptive.at_least:g} ({CLIP_RANGE:.0f} times less) to that; write a clip between them",
        )
    ]


def _rules_of_task(task: "TaskDescription", hidden: DevicePrivacy) -> list[tuple[bool, str]]:
    plan = task.aggregation
    tables = {
        "split": task.split,
        "solved_head": task.solved_head,
        "prompts": task.prompts,
        "clusters": task.clusters,
    }
    there = [table for table, value in tables.items() if value is not None]
    return [
        (
            task.masks is None,
            "is noise of the coordinator, which sees no single update with [privacy.masks]: write [privacy.masks.noise]"
            " in its place, with which devices add the noise",
        ),
        (not there, f"can't be kept with [{there[0] if there else ''}], which tells of single devices; leave one out"),
        (
            task.versions_from == UPDATE_NAME,
            f"goes with versions_from = {UPDATE_NAME!r}, not {task.versions_from!r}",
        ),
        (
            plan.strategy == "fedbuff",
            f"goes with aggregation.strategy 'fedbuff', as {plan.strategy!r} looks at single updates",
        ),
        (
            plan.staleness_weighting == "constant",
            "weighs all updates alike; write aggregation.staleness_weighting = 'constant'",
        ),
        (
            plan.buffer_size is not None,
            "needs aggregation.buffer_size: the sum is divided by it; write how many updates make a version",
        ),
        *_rules_of_count(hidden, plan.smallest_buffer),
        (
            not plan.names_norm_bound,
            "bounds updates by its clip, and a bound by others' norms would tell of them; leave"
            " aggregation.norm_quantile and norm_quantile_factor out",
        ),
        (
            task.update.feedback != "ef21",
            "goes with update.feedback 'residual' or 'momentum': the estimates of 'ef21' are of single devices",
        ),
        (
            not task.statistics,
            f"can't hide the {task.statistics} values of running statistics; take GroupNorm, or write"
            " batch_norm = 'frozen'",
        ),
        (
            not task.scaling.is_awaited,
            "goes with a scale that is known: a fleet's is made of what single devices say; write"
            " scaling.inputs = 'ranges' or 'off', and the same for scaling.targets",
        ),
        (
            not task.training.validation_share,
            "needs training.validation_share = 0: whether a round is sent would depend on a device's samples",
        ),
        (
            task.sending == ALWAYS,
            f"needs every round sent, and sending.rule is {task.sending.rule!r}: whether one is would depend on a"
            " device's samples; leave [sending] out",
        ),
    ]


def _rules_of_count(plan: DevicePrivacy, buffer_size: int) -> list[tuple[bool, str]]:
    if plan.adaptive_clip is None:
        return []
    deviation = share_deviation(plan.deviation_in_clips, buffer_size)
    return [
        (
            deviation <= MOST_SHARE_DEVIATION,
            f"has adaptive_clip, and with aggregation.buffer_size = {buffer_size} the share of updates within the clip"
            f" has noise of deviation {deviation:.2g}, at most {MOST_SHARE_DEVIATION:g} is taken: the clip would follow"
            " noise; write a larger buffer_size or epsilon, or leave adaptive_clip out",
        )
    ]
