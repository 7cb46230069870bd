"""MD-GAN (Hardy et al. 2019, arXiv 1811.03850): one generator at the helper, a discriminator on each device, which
devices swap."""

import numpy as np

from benchmarks.split_gans.fleet import HELPER, GanFleet
from benchmarks.split_gans.method import Method, devices
from benchmarks.split_gans.scenario import Participant
from fleet_protocol.split_plan import SplitPlan

DISCRIMINATOR = "discriminator"


def _holder_of(participant: Participant, block: int, plan: SplitPlan) -> str:
    return participant.name if plan.blocks[block].part == DISCRIMINATOR else HELPER


def _federate(fleet: GanFleet, number: int) -> int:
    names = np.random.default_rng(number).permutation([each.name for each in fleet.participants]).tolist()
    for block, each in enumerate(fleet.plan.blocks):
        if each.part == DISCRIMINATOR:
            fleet.swap(names, block)
    return 0


MD_GAN = Method(devices, _holder_of, _federate)
