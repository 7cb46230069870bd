"""FedGAN (Rasouli et al. 2020, arXiv 2006.07228): every device trains a whole pair, and all pairs are averaged."""

from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.method import Method, average_plainly, devices, own


def _federate(fleet: GanFleet, _: int) -> int:
    average_plainly(fleet, own)
    return 0


FEDGAN = Method(devices, own, _federate)
