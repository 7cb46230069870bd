"""What hostile devices send. They know all updates of honest devices, act together, and send dense float32.

With n devices of which m are hostile, mu and sigma the mean and the deviation of each entry of what the honest ones
sent last, and r the median of their norms:

    sign_flip           -own
    scaled_sign_flip    -10 * own
    label_flip          trained on labels of which each is taken for the next class
    flip_and_claim      the same, with a million samples claimed
    noise               Gaussian, as long as 4 r
    alie                mu - z sigma, z as large as is hidden among the honest (Baruch et al. 2019)
    inner_product       -5 mu, which turns the mean round (Xie et al. 2020)
    collusion           -mu, as long as the norm bound lets a fifth of a fleet be: 4 r
    below               -own across the mean direction of all, and along it as far back as is not suspicious; so long

`below` knows the rule of `aggregation/quarantine.py` and its usual threshold, and stays at 0.95 of it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.quarantine import LEAST_OF_COSINE, LEAST_OF_NORM, Spread
from bundle_runtime.samples import Samples
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.codec import decode_update, encode_update
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.quarantine_plan import USUAL_THRESHOLD
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

DENSE: Final = UpdatePlan(1.0, quantisation="float32", selection="dense")
SCALE: Final = 10.0
MOST_OF_USUAL_NORM: Final = 4.0
"""What `aggregation/bounds.py` lets a device reach, where a tenth of them are as long."""
OF_THRESHOLD: Final = 0.95
"""How near hostile devices dare to go to what is suspicious."""
ACROSS: Final = 1e-3
"""A cosine that stays positive when it is rounded."""
FEWEST_KNOWN: Final = 10
"""Honest devices whose updates are known, before which hostile ones that need them flip their own sign."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Known:
    """What hostile devices know: their own update, `honest` float64 [H, P] of the honest devices that have sent one,
    and how many devices there are and are hostile.
    """

    own: Vector
    honest: NDArray[np.float64]
    devices: int
    hostile: int
    generator: np.random.Generator

    @property
    def usual_norm(self) -> float:
        """r."""
        return float(np.median(np.linalg.norm(self.honest, axis=1)))


Attack = Callable[[Known], Vector]


def _noise(known: Known) -> Vector:
    drawn = known.generator.standard_normal(known.own.size)
    return drawn * (MOST_OF_USUAL_NORM * known.usual_norm / float(np.linalg.norm(drawn)))


def _alie(known: Known) -> Vector:
    supporters = known.devices // 2 + 1 - known.hostile
    honest = known.devices - known.hostile
    z = NormalDist().inv_cdf((honest - supporters) / honest)
    result: Vector = known.honest.mean(axis=0) - z * known.honest.std(axis=0)
    return result


def _collusion(known: Known) -> Vector:
    mean = known.honest.mean(axis=0)
    length = float(np.linalg.norm(mean))
    result: Vector = -mean * (MOST_OF_USUAL_NORM * known.usual_norm / length) if length else mean
    return result


def _below(known: Known) -> Vector:
    norms = np.linalg.norm(known.honest, axis=1)
    directions = known.honest[norms > 0] / norms[norms > 0, None]
    total = directions.sum(axis=0)
    along = total / np.linalg.norm(total)
    others = total - directions
    cosines = np.sum(directions * others, axis=1) / np.linalg.norm(others, axis=1)
    dared = OF_THRESHOLD * USUAL_THRESHOLD
    usual, length = Spread.of(cosines, LEAST_OF_COSINE), Spread.of(norms, LEAST_OF_NORM * float(np.median(norms)))
    allowed = usual.median - dared * usual.deviation
    cosine = max(allowed, -1.0) if allowed < 0 else ACROSS  # a positive one is never suspicious
    across = -known.own + (known.own @ along) * along
    across /= float(np.linalg.norm(across)) or 1.0
    result: Vector = (length.median + dared * length.deviation) * (cosine * along + math.sqrt(1 - cosine**2) * across)
    return result


OF_OWN: Final[Mapping[str, Attack]] = {
    "sign_flip": lambda known: -known.own,
    "scaled_sign_flip": lambda known: -SCALE * known.own,
}
OF_HONEST: Final[Mapping[str, Attack]] = {
    "noise": _noise,
    "alie": _alie,
    "inner_product": lambda known: -5.0 * known.honest.mean(axis=0),
    "collusion": _collusion,
    "below": _below,
}
OF_LABELS: Final = ("label_flip", "flip_and_claim")
NOBODY: Final = "none"
ATTACKS: Final = (NOBODY, *OF_OWN, *OF_LABELS, *OF_HONEST)


def flipped(samples: Samples, classes: int) -> Samples:
    """Each taken for the next class."""
    return Samples(samples.inputs, (samples.labels + 1) % classes)


class Adversary:
    """Who tells hostile devices what to send: the first `hostile` of `devices`."""

    def __init__(self, attack: str, devices: int, hostile: int, seed: int) -> None:
        self._attack = attack
        self._devices = devices
        self._hostile = hostile
        self._honest: dict[int, Vector] = {}
        self._generator = np.random.default_rng((seed, 5))

    def tamper(self, device: int, task: TaskDescription, result: TrainingResult) -> TrainingResult:
        """See `workbench.simulation.world.Tamper`."""
        if self._attack in (NOBODY, *OF_LABELS):
            claims = self._attack == "flip_and_claim" and device < self._hostile
            return msgspec.structs.replace(result, samples=MAX_SAMPLES_PER_UPDATE) if claims else result
        own = _written(task, result)
        if device >= self._hostile:
            self._honest[device] = own
            return result
        vector = self._made(own)
        most = task.largest_delta_norm
        length = float(np.linalg.norm(vector))
        within = vector if length <= most else vector * (math.nextafter(most, 0) / length * (1 - 1e-6))
        packed = encode_update(within.astype(np.float32), task.shapes, DENSE, self._generator).packed
        return msgspec.structs.replace(result, packed=packed)

    def _made(self, own: Vector) -> Vector:
        enough = len(self._honest) >= FEWEST_KNOWN
        attack = OF_OWN.get(self._attack) or (OF_HONEST[self._attack] if enough else OF_OWN["sign_flip"])
        honest = np.stack(list(self._honest.values())) if enough else np.zeros((0, own.size))
        return attack(Known(own, honest, self._devices, self._hostile, self._generator))


def _written(task: TaskDescription, result: TrainingResult) -> Vector:
    delta = decode_update(result.packed, task.shapes)
    vector = np.zeros(task.parameter_count)
    vector[delta.indices] = delta.values
    return vector
