"""What a run's messages have told so far, of what its task promises, in the words of tables and reports."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from fleet_protocol.task_description import TaskDescription


class Told(msgspec.Struct, frozen=True):
    """At most so much of one sample, by all that its device sends; or of one device, by all versions. `planned` is what
    the task allows in the end; so many versions are left until then, None where rounds of a device are counted. Where
    `owners_choose`, it is of devices with the task's noise or more. `clip` is that of devices' next updates, where it
    follows their norms.
    """

    of: Literal["sample", "device"]
    epsilon: float
    planned: float
    delta: float
    versions_left: int | None = None
    clip: float | None = None
    owners_choose: bool = False


def told_so_far(task: TaskDescription, *, rounds: int, versions: int, clip: float | None) -> list[Told]:
    """Once a device has sent so many `rounds`, of which a sample was in as many as it may be, and so many versions are
    made, the last of which has this `clip`; nothing where the task promises nothing.
    """
    told = []
    if (samples := task.sample_privacy) is not None:
        epsilon = samples.epsilon_told(rounds, task.training.steps)
        choose = samples.owners_choose
        told.append(Told("sample", epsilon, samples.epsilon, samples.delta, owners_choose=choose))
    if (devices := task.device_privacy) is not None:
        epsilon = devices.epsilon_after(versions)
        left = devices.versions - versions
        told.append(Told("device", epsilon, devices.epsilon, devices.delta, left, devices.clip_after(clip)))
    return told


def told_words(told: Sequence[Told]) -> list[str]:
    """One phrase each, for a line that has others."""
    return [f"epsilon {each.epsilon:.3g} of {each.planned:g} per {each.of}" for each in told]


def told_notes(told: Sequence[Told]) -> list[tuple[str, str, str]]:
    """For each: how much, of what, and what stands beside it."""
    return [(f"epsilon {each.epsilon:.3g}", f"told of a single {each.of}", _note(each)) for each in told]


def _note(each: Told) -> str:
    planned = f"{each.planned:g} is planned, at delta {each.delta:g}"
    if each.of == "sample":
        whose = "one device that has not chosen to go without noise" if each.owners_choose else "one device"
        return f"at most, by all updates of {whose}: its samples are hidden by noise; {planned} (docs/privacy.md)"
    clip = "" if each.clip is None else f"; updates are clipped at {each.clip:.3g} by now"
    return (
        f"at most, by all versions so far: noise hides each device; {planned}, and {each.versions_left} versions are"
        f" left{clip} (docs/privacy.md)"
    )
