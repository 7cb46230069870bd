"""A federated split GAN without clusters: one mean of each block over all devices, weighed by their samples."""

from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.method import Method, average_plainly, by_cut, devices


def _federate(fleet: GanFleet, _: int) -> int:
    average_plainly(fleet, by_cut)
    return 0


PLAIN_SPLIT = Method(devices, by_cut, _federate)
