"""The published fleet in the planner's whole model: each device by itself, and all in lockstep."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.published_latency import AS_PUBLISHED, PROFILES, SERVER, Profile, halves
from fleet_protocol.split_plan import Cut
from fleet_protocol.split_step_costs import step_walk
from fleet_protocol.task_description import TaskDescription
from workbench.split_planning.cut_options import Machine, machine_option
from workbench.split_planning.evolution import Evolution
from workbench.split_planning.round_ends import device_round_end, middle_round_end
from workbench.split_planning.searches import Searched, search_plan
from workbench.split_planning.shared_helpers import Group, Sharing
from workbench.split_planning.timeline import Conditions, Walker, steps_done

HELPER: Final = Machine(SERVER.gflops * 1e9, SERVER.link, SERVER.link, 0.0)


@dataclass(frozen=True, slots=True)
class Member:
    """A device with its profile, by number."""

    profile: int
    machine: Machine


def members(counts: Sequence[int], slow: int | None, times: float) -> list[Member]:
    """So many devices of each profile; one of the profile `slow` computes and sends so many times slower."""
    found = []
    for number, (profile, count) in enumerate(zip(PROFILES, counts, strict=True)):
        found += [Member(number, machine_of(profile))] * count
        if number == slow:
            found[-1] = Member(number, machine_of(profile, times))
    return found


def planned(task: TaskDescription, fleet: Sequence[Member], how: Evolution) -> tuple[Searched, list[Cut]]:
    """What the searches find with the planner's mean times, and each device's cut. Block 3 is always the helper's.
    Devices that are alike must be neighbours.
    """
    groups = [
        Group([machine_option(task, cut, kind.machine, [HELPER]) for cut in _cuts(task)], len(list(alike)))
        for kind, alike in itertools.groupby(fleet)
    ]
    sharing = Sharing(groups, [HELPER], partial(middle_round_end, task))
    searched = search_plan(sharing, how)
    chosen = zip(sharing.group_of, searched.plan, strict=True)
    return searched, [groups[group].options[number].cut for group, (number, _) in chosen]


def published_cuts(task: TaskDescription, fleet: Sequence[Member]) -> list[Cut]:
    """Those that are best under the published model, by profile."""
    counts = [sum(member.profile == number for member in fleet) for number in range(len(PROFILES))]
    generator, discriminator = (half.best(counts) for half in halves(AS_PUBLISHED))
    by_name = {cut.name: cut for cut in _cuts(task)}
    cuts = []
    for head, tail, other_head, other_tail in zip(*generator, *discriminator, strict=True):
        cuts.append(by_name[f"g3{_left(head, tail)}-d3{_left(other_head, other_tail)}"])
    return [cuts[member.profile] for member in fleet]


def hourly_steps(task: TaskDescription, fleet: Sequence[Member], cuts: Sequence[Cut], given: Conditions) -> float:
    """Of all devices together."""
    walkers = [
        Walker(member.machine, step_walk(task, cut), 0, device_round_end(task, cut), task.training.steps)
        for member, cut in zip(fleet, cuts, strict=True)
    ]
    return 3600 / given.seconds * sum(steps_done(walkers, [HELPER], given))


def machine_of(profile: Profile, times_slower: float = 1.0) -> Machine:
    """Without latency, as the published model."""
    link = profile.link / times_slower
    return Machine(1e9 * profile.gflops / times_slower, link, link, 0.0)


def _cuts(task: TaskDescription) -> list[Cut]:
    return task.split.cuts if task.split else []


def _left(keeps_head: int, keeps_tail: int) -> str:
    """What the helper has beside block 3, as the recipe's cuts are called."""
    return "h" * (not keeps_head) + "t" * (not keeps_tail)
