"""Secure aggregation of a task: the table `[privacy.masks]`, and what else of the task it excludes. Pure."""

from math import comb
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec

from fleet_protocol.aggregation_plan import USED_BY, AggregationPlan
from fleet_protocol.configuration import Name, PublicKey, Seconds
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import (
    MAX_COHORT_DEVICES,
    MAX_MASK_HELPERS,
    MAX_STALENESS_WEIGHT,
    MAX_TOP_POSITIONS_BYTES,
    MAX_UPDATE_BYTES,
)
from fleet_protocol.privacy.encryption_plan import rules_of_encryption
from fleet_protocol.privacy.noise_shares import (
    NoisedUpdates,
    NoiseShares,
    headroom,
    honest_devices,
    rules_of_noise,
    with_shared_noise,
)
from fleet_protocol.sending_plan import ALWAYS
from fleet_protocol.update_plan import Fraction

if TYPE_CHECKING:
    from fleet_protocol.task_description import TaskDescription

PositionRule: TypeAlias = Literal["dense", "random", "momentum"]
"""All entries; drawn for each cohort; at most half of them where the server's momentum is largest, the rest drawn."""
MASKED_UPDATE_NAME: Final = "masked update"
"""The kind of payload that versions of such a task are made from."""
SMALLEST_CLIP: Final = 2.0**-60
LARGEST_CLIP: Final = 2.0**60
"""Magnitudes of an entry whose levels and sums are ordinary float32 numbers."""
LARGEST_WIDTH: Final = 32
"""Bits of an entry of a sum."""
BESIDE_VALUES_BYTES: Final = 2048
"""Of a masked update, or of a helper's answer, that are no values: boxes, names and signatures."""


class MaskPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The coordinator sees the sum of many devices' updates, and no single one (docs/secure-aggregation.md)."""

    helpers: Annotated[dict[Name, PublicKey], msgspec.Meta(min_length=1, max_length=MAX_MASK_HELPERS)]
    """The mask helpers: the name of each in the fleet, and the key that `edgeflock-helper mask-key` prints there. Two
    at least, but for one that is the `key_holder`."""
    clip: Annotated[float, msgspec.Meta(ge=SMALLEST_CLIP, le=LARGEST_CLIP)]
    """The largest magnitude of one entry of an update: what is beyond stays on the device for later rounds."""
    colluding: Annotated[int, msgspec.Meta(ge=0, le=MAX_MASK_HELPERS - 1)] = 1
    """So many helpers may work with the coordinator, and learn nothing all the same. One below their number is the
    simple mode, in which all of them must answer. 0 goes with a key holder that is the only helper."""
    key_holder: Name | None = None
    """The mask helper for which masked updates are encrypted besides, so that the coordinator adds what it can't read;
    needs `pip install 'edgeflock[homomorphic]'` there and on devices, and the simple mode. Its key, which
    `edgeflock-helper encryption-key` writes, lies beside task.toml as key_holder.key. Left out: masks alone."""
    bits: Annotated[int, msgspec.Meta(ge=2, le=16)] = 8
    """Of one entry, with its sign."""
    keep_fraction: Fraction = 1.0
    """The share of the entries that travels: the same for all devices of a cohort."""
    positions: PositionRule | None = None
    """Which entries these are: `dense`, all; `random`, drawn for each cohort; `momentum`, half of them where the
    server's momentum is largest, and the rest drawn. Left out: `random` with a keep_fraction below 1, else `dense`."""
    fewest_devices: Annotated[int, msgspec.Meta(ge=2, le=MAX_COHORT_DEVICES)] = 10
    """A sum is of at least so many devices. The largest that it is of is `buffer_size` of [aggregation]."""
    wait_seconds: Seconds = 3600.0
    """After so long, a sum of fewest_devices is made of what has come; until then `buffer_size` of them are waited for.
    """
    patience_seconds: Seconds = 60.0
    """A helper that has not answered by then is done without, where enough others have."""
    give_up_seconds: Seconds = 3600.0
    """Where too few helpers have answered by then, nothing is summed, and devices take their updates back."""

    noise: NoiseShares | None = None
    """Where each device adds its share of the noise that hides it in every sum, and this table is there."""

    def entries(self, parameters: int) -> int:
        """How many of so many parameters travel."""
        return max(1, round(self.keep_fraction * parameters)) if self.keep_fraction < 1 else parameters

    def position_rule(self, parameters: int) -> PositionRule:
        """Which of so many parameters travel."""
        return self.positions or ("dense" if self.entries(parameters) == parameters else "random")

    def most_bytes_of_positions(self, parameters: int) -> int:
        """What positions that follow from momentum take in a manifest, at most: gaps of LEB128, whose sum is below the
        number of parameters.
        """
        if self.position_rule(parameters) != "momentum":
            return 0
        named = self.entries(parameters) // 2
        return named + sum(min(named, parameters >> 7 * more) for more in range(1, 4))

    @property
    def seeds_of_a_helper(self) -> int:
        """How many seeds each helper holds of a device: all that it does not lack (`secure_aggregation.seed_plan`)."""
        return comb(len(self.helpers) - 1, self.colluding)

    @property
    def key_holder_number(self) -> int:
        """Of the key holder among the helpers, in the order of their names; 0 where there is none."""
        return 0 if self.key_holder is None else sorted(self.helpers).index(self.key_holder)

    @property
    def most(self) -> int:
        """The largest level of an entry; the smallest is its negative."""
        return (1 << self.bits - 1) - 1

    @property
    def deviation(self) -> int:
        """Of the noise that each device adds, in levels; 0: it adds none."""
        return self.noise.deviation if self.noise else 0

    def width(self, total_weight: int) -> int:
        """Bits of an entry of a sum of updates of this total weight."""
        return max(8, (self.most * total_weight + headroom(self.deviation, total_weight)).bit_length() + 1)

    def noised_updates(self, parameters: int) -> NoisedUpdates | None:
        """What noise hides of updates of so many parameters; None where devices add none."""
        if self.noise is None:
            return None
        honest = honest_devices(self.fewest_devices, self.noise.dishonest)
        norm = self.noise.norm / self.clip * self.most
        return NoisedUpdates(norm, self.entries(parameters), self.noise.deviation, honest)


def largest_weight(aggregation: AggregationPlan) -> int:
    """Of an update among others; weights are whole numbers from 1."""
    return 1 if aggregation.staleness_weighting == "constant" else MAX_STALENESS_WEIGHT


def with_noise_of_shares(plan: MaskPlan, parameters: int, name: str) -> MaskPlan:
    """The plan as a bundle has it, with the noise that it needs.

    Raises:
        ConfigurationError: no noise suffices, or the noise is written.
    """
    updates = plan.noised_updates(parameters)
    if plan.noise is None or updates is None:
        return plan
    return msgspec.structs.replace(plan, noise=with_shared_noise(plan.noise, updates, name))


def check_masked_task(task: "TaskDescription", name: str) -> None:
    """Check that a task's versions can be made of sums that nobody sees the parts of.

    Raises:
        ConfigurationError: what contradicts it, and what to write.
    """
    plan = task.privacy.masks if task.privacy else None
    if (plan is not None) != (task.versions_from == MASKED_UPDATE_NAME):
        raise ConfigurationError(
            f"{name}: versions_from is {task.versions_from!r}; a task has a table [privacy.masks] where that is"
            f" {MASKED_UPDATE_NAME!r}, and nowhere else"
        )
    if plan is None:
        return
    rules = [*_rules_of_plan(plan, task), *_rules_of_positions(plan, task), *_rules_of_task(task)]
    if plan.key_holder is not None:
        rules += rules_of_encryption(plan, plan.key_holder, task, largest_weight(task.aggregation))
    for holds, otherwise in rules:
        if not holds:
            raise ConfigurationError(f"{name}: [privacy.masks] {otherwise}")
    updates = plan.noised_updates(task.trained_count)
    if plan.noise is None or updates is None:
        return
    for holds, otherwise in (*rules_of_noise(plan.noise, updates), *_rules_of_noised_task(task)):
        if not holds:
            raise ConfigurationError(f"{name}: [privacy.masks.noise] {otherwise}")


def _rules_of_plan(plan: MaskPlan, task: "TaskDescription") -> list[tuple[bool, str]]:
    devices = task.aggregation.buffer_size or 0
    keys = {key.strip().lower() for key in plan.helpers.values()}
    width = plan.width(max(devices, 1) * largest_weight(task.aggregation))
    value_bytes = (plan.entries(task.trained_count) * width + 7) // 8
    return [
        (len(keys) == len(plan.helpers), "names two helpers with one key; each has a key of its own"),
        (
            plan.key_holder is not None or min(plan.colluding, len(plan.helpers) - 1) > 0,
            f"has {len(plan.helpers)} helpers and colluding = {plan.colluding}; name two helpers and write 1, at least:"
            " one that works with the coordinator would see every update",
        ),
        (
            plan.colluding < len(plan.helpers),
            f"colluding is {plan.colluding}, and there are {len(plan.helpers)} helpers; write a smaller number, or name"
            " more helpers",
        ),
        (
            plan.fewest_devices <= devices <= MAX_COHORT_DEVICES,
            f"needs aggregation.buffer_size, the most devices of a sum, from fewest_devices ({plan.fewest_devices}) to"
            f" {MAX_COHORT_DEVICES}; it is {devices or 'left out'}",
        ),
        (
            width <= LARGEST_WIDTH,
            f"needs {width} bits for sums of {devices} devices with {plan.bits} bits each, and for"
            f" their noise, at most {LARGEST_WIDTH} are there; lower bits or aggregation.buffer_size",
        ),
        (
            plan.seeds_of_a_helper * value_bytes + BESIDE_VALUES_BYTES <= MAX_UPDATE_BYTES,
            f"makes answers of {plan.seeds_of_a_helper * value_bytes} bytes, at most {MAX_UPDATE_BYTES} travel; lower"
            " keep_fraction, bits or the number of helpers",
        ),
    ]


def _rules_of_positions(plan: MaskPlan, task: "TaskDescription") -> list[tuple[bool, str]]:
    count = task.trained_count
    rule, entries, position_bytes = plan.position_rule(count), plan.entries(count), plan.most_bytes_of_positions(count)
    optimiser = task.aggregation.server_optimiser
    return [
        (
            (rule == "dense") == (entries == count),
            f"sends {entries} of {count} entries with positions {rule!r}; 'dense' goes with keep_fraction = 1, every"
            " other rule with a smaller one",
        ),
        (
            rule != "momentum" or optimiser in USED_BY["server_momentum"][1],
            f"takes positions from the server's momentum, and aggregation.server_optimiser {optimiser!r} has none;"
            " write 'momentum' there, or positions = 'random'",
        ),
        (
            position_bytes <= MAX_TOP_POSITIONS_BYTES,
            f"may take {position_bytes} bytes of each manifest for positions, at most {MAX_TOP_POSITIONS_BYTES} are"
            " there; lower keep_fraction, or write positions = 'random'",
        ),
    ]


def _rules_of_task(task: "TaskDescription") -> list[tuple[bool, str]]:
    plan = task.aggregation
    tables = {
        "split": task.split,
        "solved_head": task.solved_head,
        "prompts": task.prompts,
        "clusters": task.clusters,
    }
    there = [table for table, value in tables.items() if value is not None]
    return [
        (not there, f"can't be kept with [{there[0] if there else ''}], which tells of single devices; leave one out"),
        (
            plan.strategy == "fedbuff",
            f"goes with aggregation.strategy 'fedbuff', as {plan.strategy!r} looks at single updates",
        ),
        (
            task.update.feedback == "residual",
            f"goes with update.feedback 'residual', not {task.update.feedback!r}",
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
    ]


def _rules_of_noised_task(task: "TaskDescription") -> list[tuple[bool, str]]:
    return [
        (
            not task.training.validation_share,
            "needs training.validation_share = 0: whether a round is sent would depend on a device's samples",
        ),
        (
            task.aggregation.staleness_weighting == "constant",
            "weighs all updates alike, as a weight would enlarge noise; write aggregation.staleness_weighting ="
            " 'constant'",
        ),
        (
            task.sending == ALWAYS,
            f"needs every round sent, and sending.rule is {task.sending.rule!r}: whether one is would depend on a"
            " device's samples; leave [sending] out",
        ),
    ]
