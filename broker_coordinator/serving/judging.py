"""What of a task's buffer must not count in the next version, or not yet. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from broker_coordinator.admission.participation import Participation, require_turn
from broker_coordinator.aggregation.bounds import scaled
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.harm import Declared
from broker_coordinator.aggregation.quarantine import Judged, Sent, Suspicion
from broker_coordinator.consumers.update import UpdateFacts
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.serving.waiting import WaitingPayload
from fleet_protocol.errors import ProtocolError
from fleet_protocol.quarantine_plan import QuarantinePlan


def suspicions(task: ServedTask) -> dict[int, Suspicion]:
    """By position, what of the `buffer` is suspicious and was not known to be. Trusted devices are never."""
    suspects, rule = task.description.suspects, task.description.aggregation.rule
    if suspects is None or not is_judging(task, suspects):
        return {}
    _note_known(task)
    trusted = rule.trusted_devices if rule else ()
    buffer = [as_judged(each) for each in task.buffer() if each.device not in trusted]
    found = task.quarantine.suspicions(buffer, task.state.weights.size, suspects)
    return {buffer[place].position: each for place, each in found.items()}


def is_judging(task: ServedTask, plan: QuarantinePlan) -> bool:
    """Whether updates of the next version are judged."""
    tempering = task.newest.tempering
    return plan.action != "temper_on_harm" or (tempering is not None and tempering.is_on(task.newest.number))


def declared(task: ServedTask, updates: Iterable[WaitingPayload]) -> list[Declared]:
    """What they tell of harm, where that is looked for; nothing of those without a loss."""
    if task.description.suspects is None or task.description.suspects.action != "temper_on_harm":
        return []
    return [
        Declared(each.device, each.facts.loss, each.item.base_version)
        for each in updates
        if each.facts.loss is not None
    ]


def hold(task: ServedTask, found: Mapping[int, Suspicion]) -> None:
    """Note what is known of those that wait, and let those that are held wait no longer; others are tempered."""
    task.waiting = deque(
        each if (known := found.get(each.position)) is None else suspected(each, known) for each in task.waiting
    )
    _note_known(task)
    task.drop({position for position, each in found.items() if each.is_held})


def suspected(update: WaitingPayload, found: Suspicion) -> WaitingPayload:
    """One that waits, with what was found, as it is read from the journal then (`consumers.update`)."""
    changed = msgspec.structs.replace(update, suspicion=found.reason)
    if found.is_held or found.counts == 1.0:
        return changed
    facts = msgspec.structs.replace(update.facts, tempered=found.counts)
    delta = scaled(update.item.delta, found.counts)
    item = msgspec.structs.replace(update.item, delta=delta, tempered=found.counts)
    return msgspec.structs.replace(changed, facts=facts, item=item)


def as_judged(update: WaitingPayload) -> Judged:
    """One that waits."""
    sent = sent_of(update.facts, update.item)
    return Judged(update.device, update.position, sent, update.suspicion, is_tempered=update.facts.tempered != 1.0)


def sent_of(facts: UpdateFacts, item: BufferedUpdate) -> Sent:
    """An update as others are compared with it."""
    return Sent(facts.norm, item.delta)


def out_of_turn(task: ServedTask) -> dict[int, str]:
    """By position, what must not count in the next version, and why: admission has foreseen another one for it, as
    something was set aside meanwhile.
    """
    plan = task.description.device_privacy
    if plan is None:
        return {}
    found, seen = {}, dict[str, Participation]()
    for each in task.buffer():
        before = seen.get(each.device) or task.participations.get(each.device, Participation())
        try:
            require_turn(each.device, task.description.task, plan, before, task.noise.made + 1)
        except ProtocolError as error:
            found[each.position] = str(error)
        else:
            seen[each.device] = before.again(task.noise.made + 1)
    return found


def _note_known(task: ServedTask) -> None:
    """The verdicts on all that waits and is known to be suspicious: a restart finds these in the journal."""
    for each in task.waiting:
        if each.suspicion:
            task.quarantine.verdicts.note(each.device, each.position, suspicious=True)
