"""What one poisoned device does to a fleet: `python -m benchmarks.poisoned_device RECIPE DATA`.

The recipe's own graphs, codec and plan, the shipped checks of updates and the shipped aggregation; devices train by
turns, drawn at random, from the newest version. After ten rounds of each device one of them sends its update turned
round and stretched to a norm, with a million samples declared, for another ten. The last line is one JSON object: for
each norm (0: nobody is poisoned) the accuracy in percent of the model to use, after the twenty rounds and 40 versions
after the device has left the strategy's memory.

Chosen by it: the factors in `aggregation/bounds.py`, on digits alone. Shown with it: MNIST.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.mnist import read_mnist
from broker_coordinator.admission.consumer import Offered
from broker_coordinator.aggregation.averaging import RecentVersions
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_step import initial_state, next_state
from broker_coordinator.consumers.peers import Declared, Peers
from broker_coordinator.consumers.update import admit
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.feedback import recall
from fleet_protocol.codec import decode_update, encode_update, read_weights, write_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import UPDATE, Update
from fleet_protocol.task_description import TaskDescription
from workbench.data.samples import read_samples, share_out
from workbench.simulation.workload import Workload, trained_workload

EVIL = 0
"""The number of the poisoned device."""

DECLARED_SAMPLES = 1_000_000
NORMS = (0.0, 3.0, 20.0, 99.9)
ROUNDS = 10
MNIST_IMAGES = 4_000


class Fleet:
    """Devices that train by turns, and what the coordinator makes of their updates."""

    def __init__(self, task: TaskDescription, first: FloatVector, workload: Workload, devices: int, seed: int) -> None:
        self._task = task
        self._workload = workload
        self._residuals = [b""] * devices
        self._generator = np.random.default_rng(seed)
        self._state = initial_state(first, task.aggregation)
        self._peers = Peers()
        self._buffer: list[BufferedUpdate] = []
        self._recent = RecentVersions(task.aggregation.averaged_versions)
        self._keep()
        self.refused = 0

    def run(self, updates: int, *, norm: float = 0.0, eagerness: float = 1.0) -> None:
        """So many updates. With a `norm` the poisoned device's are that long; it sends `eagerness` times as often as
        another one."""
        odds = np.ones(len(self._residuals))
        odds[EVIL] = eagerness
        for _ in range(updates):
            number = int(self._generator.choice(len(odds), p=odds / odds.sum()))
            update = self._trained(number)
            self._take(f"d{number}", self._poisoned(update, norm) if norm and number == EVIL else update)

    def forget(self) -> None:
        """The poisoned device leaves what the strategy remembers, and what waits."""
        kept = {device: each for device, each in self._state.remembered.items() if device != f"d{EVIL}"}
        self._state = replace(self._state, remembered=kept)
        self._buffer = [update for update in self._buffer if update.device != f"d{EVIL}"]

    def accuracy(self) -> float:
        """Of the model to use, in percent."""
        weights = read_weights(self._recent.model(self._task.parameters), self._task.parameters)
        return 100 * self._workload.score(weights)

    def _trained(self, number: int) -> Update:
        task = self._task
        samples = self._workload.samples(number, np.arange(self._workload.count(number)))
        seed = int(self._generator.integers(2**31))
        plan = plan_batches(len(samples.labels), task.training.steps, task.training.batch_size, seed)
        trained, losses = self._workload.engine.train(self._state.weights, samples, plan, Rates.planned(task.training))
        feedback = recall(task.update, self._residuals[number], task.parameter_count, 1)
        encoded = encode_update(
            feedback.offer(trained - self._state.weights), task.shapes, task.update, self._generator
        )
        feedback.take(encoded.sent)
        self._residuals[number] = feedback.state()
        return Update(len(samples.labels), task.training.steps, float(losses[-1]), encoded.packed, feedback.life)

    def _poisoned(self, update: Update, norm: float) -> Update:
        honest = decode_update(update.packed, self._task.shapes)
        turned = np.zeros(self._task.parameter_count, np.float32)
        honest.add_to(turned, scale=-norm / honest.norm())
        plan = msgspec.structs.replace(self._task.update, quantisation="float32")
        packed = encode_update(turned, self._task.shapes, plan, self._generator).packed
        return msgspec.structs.replace(update, samples=DECLARED_SAMPLES, packed=packed)

    def _take(self, device: str, update: Update) -> None:
        header = Header(UPDATE, 1, self._task.task, self._state.version, bytes(16))
        try:
            admitted = admit(Offered(device, header, update, self._task, 0, None, self._peers))
        except ProtocolError:
            self.refused += 1
            return
        facts = admitted.facts
        self._peers.note(device, Declared(facts.declared or facts.samples, facts.norm))
        self._buffer.append(admitted.item)
        if len(self._buffer) == self._task.aggregation.smallest_buffer:
            self._state = next_state(self._state, self._buffer, self._task.aggregation)
            self._buffer = []
            self._keep()

    def _keep(self) -> None:
        self._recent.add(self._state.version, write_weights(self._state.weights, self._task.parameters))


def measure(recipe: Path, data: str, devices: int, norm: float, seed: int) -> tuple[float, float]:
    """Accuracy at the end of the attack, and 40 versions after the device has left."""
    bundle = load_bundle(recipe)
    task = bundle.description
    parts, held_out = share_out(_samples(data, task), task, devices, seed)
    first = read_weights(bundle.weights, task.parameters)
    fleet = Fleet(task, first, trained_workload(recipe, task, parts, held_out), devices, seed)
    fleet.run(ROUNDS * devices)
    fleet.run(ROUNDS * devices, norm=norm)
    poisoned = fleet.accuracy()
    fleet.forget()
    fleet.run(40 * task.aggregation.smallest_buffer, eagerness=0.0)
    return poisoned, fleet.accuracy()


def _samples(data: str, task: TaskDescription) -> Samples:
    if data == "digits":
        return read_samples(data, task)
    digits = read_mnist(Path(data))
    return Samples(digits.images[:MNIST_IMAGES].reshape(-1, *task.input.shape), digits.labels[:MNIST_IMAGES])


def main() -> None:
    """Print a line per norm, then everything as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path, help="the folder of a recipe's bundle")
    parser.add_argument("data", help="digits, or a folder with MNIST's test images")
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = {}
    for norm in NORMS:
        poisoned, left = found[norm] = measure(given.recipe, given.data, given.devices, norm, given.seed)
        print(f"norm {norm:g}: {poisoned:.1f} %, after the device has left {left:.1f} %", flush=True)
    print(json.dumps({"recipe": given.recipe.name, "devices": given.devices, "accuracy": found}))


if __name__ == "__main__":
    main()
