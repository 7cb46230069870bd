"""Whether a task's plan suits a fleet of a certain size: sentences on what does not, and on what to set. Pure."""

from collections.abc import Callable, Collection, Iterator

from broker_coordinator.aggregation.buffer_size import VERSIONS_LOOKED_AT, Participants
from fleet_protocol.quarantine_plan import FEWEST_OTHERS
from fleet_protocol.robust_plan import FEWEST_COMPARED, TRUSTING_RULES
from fleet_protocol.task_description import TaskDescription


def misfits(task: TaskDescription, devices: int) -> list[str]:
    """Of a fleet of so many devices that take part; none where there is no device yet, or all fits."""
    if not devices:
        return []
    found = (_of_buffer, _of_cohort, _of_rule, _of_quarantine)
    return [words for each in found for words in each(task, devices)]


def of_trusted(
    task: TaskDescription, approved: Callable[[], Collection[str]], heard: Collection[str] | None = None
) -> list[str]:
    """Which of the devices that a rule judges by are not approved, or that none of them is among those whose updates
    are not too stale yet, the ones that are `heard`; None where that is not known.
    """
    rule = task.aggregation.rule
    if rule is None or not rule.trusted_devices:
        return []
    known = approved()
    found = [
        f"aggregation.robust.trusted_devices names {device!r}, which is not approved: enrol and approve it, or name"
        " another one"
        for device in rule.trusted_devices
        if device not in known
    ]
    if heard is not None and not set(heard) & set(rule.trusted_devices):
        found.append(
            f"none of aggregation.robust.trusted_devices ({', '.join(rule.trusted_devices)}) has sent an update that"
            f" began within the last {task.aggregation.max_staleness} versions: {rule.rule!r} has nothing to judge by,"
            " and the model stays as it is; see that they run, have samples, and train for each version"
        )
    return found


def _of_buffer(task: TaskDescription, devices: int) -> Iterator[str]:
    plan = task.aggregation
    named, usual = plan.buffer_size, Participants().buffer_size(devices)
    if named is None:
        return
    remedy = f"leave buffer_size out (it would be {usual} now, and follow the fleet)"
    asked = named * plan.over_selection
    if plan.strategy == "fedavg":
        if asked > devices:
            yield (
                f"a round asks {asked:g} devices (buffer_size {named} times over_selection {plan.over_selection:g}),"
                f" and there are {devices}: it ends at its deadline of {plan.round_seconds:g} s each time; set"
                f" buffer_size to {max(1, round(devices / plan.over_selection))} at most"
            )
    elif named * VERSIONS_LOOKED_AT < devices:
        yield (
            f"buffer_size {named} is small for {devices} devices: each is in one version of {devices / named:.0f}, and"
            f" what it remembers of its last round is as many versions old, of which the model may fall apart; {remedy}"
        )
    elif named > max(usual, devices):
        yield (
            f"buffer_size {named} is more than all devices, which are {devices}: each sends several updates of one"
            f" version before the next is made; {remedy}"
        )


def _of_cohort(task: TaskDescription, devices: int) -> Iterator[str]:
    masks = task.masks
    if masks is not None and masks.fewest_devices > devices:
        yield (
            f"privacy.masks.fewest_devices is {masks.fewest_devices}, and there are {devices} devices: no sum is ever"
            " made; set it lower, or let more devices join"
        )


def _of_rule(task: TaskDescription, devices: int) -> Iterator[str]:
    rule = task.aggregation.rule
    if rule is None or rule.rule in TRUSTING_RULES:
        return
    fewest = (FEWEST_COMPARED - 1) * rule.bucket_size + 1
    if devices < fewest:
        of_buckets = "" if rule.bucket_size == 1 else f" in buckets of {rule.bucket_size}"
        yield (
            f"aggregation.robust.rule {rule.rule!r} compares devices{of_buckets}, and of {devices} it can't tell which"
            f" are hostile; let {fewest} or more take part, or leave [aggregation.robust] out"
        )


def _of_quarantine(task: TaskDescription, devices: int) -> Iterator[str]:
    if task.aggregation.suspects is not None and devices <= FEWEST_OTHERS:
        yield (
            f"[aggregation.quarantine] compares each device with {FEWEST_OTHERS} others or more, and of {devices}"
            f" devices it holds nothing; let {FEWEST_OTHERS + 1} or more take part, or leave it out"
        )
