"""A fleet whose suspicious updates are held: eight honest devices, which have all sent something, and a hostile one."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from broker_coordinator.storage.journal import Journal
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import encode_update
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import TINY_SHAPES, SigningDevice

PLAN = AggregationPlan(buffer_size=2, max_staleness=3, server_momentum=0.5, quarantine=QuarantinePlan())
DENSE = UpdatePlan(1.0, quantisation="float32", selection="dense")
USUAL = np.linspace(0.1, 0.2, 36)
HONEST = [SigningDevice(f"pi-{number}") for number in range(8)]
EVIL = SigningDevice("evil-pi")
REVERSED = -1.0
"""Times the usual direction."""
WARM = 4
"""The version behind which all honest devices have sent something."""


def packed(times: float, seed: int) -> bytes:
    generator = np.random.default_rng(seed)
    delta = times * USUAL + generator.normal(0, 0.02, USUAL.size)
    return encode_update(delta.astype(np.float32), TINY_SHAPES, DENSE, generator).packed


class Fleet:
    """Eight honest devices, which have all sent something, and one more."""

    def __init__(self, folder: Path, name: str = "one", plan: AggregationPlan = PLAN, **options) -> None:
        self.bundle = write_bundle(folder / "bundle", aggregation=plan)
        self.bench = Bench(folder / f"{name}.db", self.bundle, replace(OPEN, keys=(KEY,)), **options)
        self._sent = Counter[str]()
        self.restarts = False
        for device in (*HONEST, EVIL):
            self.bench.handle(device, device.enrolment())
        self.turn(*HONEST)

    @property
    def journal(self) -> Journal:
        return self.bench.journal

    def newest(self) -> int:
        return self.journal.newest_number(TASK)

    def message(self, device: SigningDevice, times: float = 1.0, loss: float = 0.5) -> bytes:
        self._sent[device.name] += 1
        sequence = self._sent[device.name]
        seed = 100 * sequence + (HONEST.index(device) if device in HONEST else 99)
        return device.update(sequence, base_version=self.newest(), loss=loss, packed=packed(times, seed))

    def turn(self, *devices: SigningDevice, times: float = 1.0, loss: float = 0.5) -> None:
        for device in devices:
            if self.restarts:
                self.bench.restart()
            self.bench.handle(device, self.message(device, times, loss))
            self.bench.make_versions()

    def evil_turn(self) -> None:
        """One update that is held, beside honest ones of which the next version is made."""
        self.turn(EVIL, times=REVERSED)
        self.turn(*HONEST[:2])

    def states(self, device: SigningDevice = EVIL) -> list[tuple[int | None, str | None]]:
        """Of each of its updates: the version that holds it, and why it is set aside."""
        return [(row.aggregate, row.set_aside) for row in self.journal.payloads() if row.device == device.name]
