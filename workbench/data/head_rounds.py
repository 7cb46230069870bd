"""The same head trained in rounds by a simulated fleet of shipped parts: what one message is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_step import initial_state, next_state
from bundle_runtime.bundle import Bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.engines import make_engine
from edge_agent.training.round import Earlier, learn, train_round
from fleet_protocol import topics
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import decode_update, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import UPDATE, Update, encode_payload
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

RATES = (0.001, 0.003, 0.01, 0.03)
TUNING_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Rounds:
    """After each round: the accuracy on the test set, and the bytes of all updates so far."""

    learning_rate: float
    accuracies: Sequence[float]
    sent: Sequence[int]

    @property
    def best(self) -> float:
        """The highest accuracy of any round."""
        return max(self.accuracies)

    def bytes_to(self, accuracy: float) -> int | None:
        """Until it is first reached; None where it never is."""
        return next((sent for found, sent in zip(self.accuracies, self.sent, strict=True) if found >= accuracy), None)

    def summary(self) -> dict[str, object]:
        """For the last line."""
        shown = [number for number in (1, 5, 20, 50, 100, 200) if number <= len(self.accuracies)]
        return {
            "learning_rate": self.learning_rate,
            "accuracy_after": {str(number): round(self.accuracies[number - 1], 4) for number in shown},
            "bytes_after": {str(number): self.sent[number - 1] for number in shown},
            "best": round(self.best, 4),
        }


@dataclass(frozen=True, slots=True)
class Contest:
    """Where rounds are run: the bundle, also as a `folder`, the samples of all `devices`, and those of the `test`."""

    bundle: Bundle
    folder: Path
    devices: Sequence[Samples]
    test: Samples

    def rounds(
        self, update: UpdatePlan, count: int, rates: Sequence[float], start: FloatVector | None = None
    ) -> Rounds:
        """So many synchronous rounds of all devices from `start`, f32[P], or else the bundle's weights, at the learning
        rate that is best within `TUNING_ROUNDS`, where there are several to choose from.
        """
        rate = rates[0]
        if len(rates) > 1:
            tried = {rate: self._rounds_at(self._task(update, rate), TUNING_ROUNDS, start).best for rate in rates}
            rate = max(tried, key=lambda rate: tried[rate])
        return self._rounds_at(self._task(update, rate), count, start)

    def averaged(self, update: UpdatePlan, count: int, rate: float) -> float:
        """Accuracy of the mean, by samples, of heads that every device has trained alone for so many rounds."""
        task = self._task(update, rate)
        engine = make_engine("onnx-step", bundle_paths(self.folder, task), task, 1)
        first = read_weights(self.bundle.weights, task.parameters)
        total, of_all = np.zeros(first.size), 0
        for samples in self.devices:
            weights = first
            for number in range(count):
                weights = learn(engine, weights, samples, task, number).weights
            total += len(samples) * weights.astype(np.float64)
            of_all += len(samples)
        mean = (total / of_all).astype(np.float32)
        return BundleRunner(task, self.bundle.files).evaluate_features(mean, self.test).accuracy or 0.0

    def _task(self, update: UpdatePlan, rate: float) -> TaskDescription:
        """The task as if its head were trained."""
        training = msgspec.structs.replace(self.bundle.description.training, learning_rate=rate)
        return msgspec.structs.replace(
            self.bundle.description,
            versions_from=UPDATE.name,
            solved_head=None,
            training=training,
            update=update,
            aggregation=AggregationPlan(buffer_size=len(self.devices)),
        )

    def _rounds_at(self, task: TaskDescription, count: int, start: FloatVector | None) -> Rounds:
        engine = make_engine("onnx-step", bundle_paths(self.folder, task), task, 1)
        runner = BundleRunner(task, self.bundle.files)
        first = read_weights(self.bundle.weights, task.parameters) if start is None else start
        state = initial_state(first, task.aggregation)
        residuals = [b""] * len(self.devices)
        accuracies, sent = [], []
        total = 0
        for number in range(count):
            updates = []
            for place, samples in enumerate(self.devices):
                earlier = Earlier(residuals[place], (), number, 1)
                result = train_round(engine, state.weights, samples, task, earlier)
                residuals[place] = result.residual
                delta = decode_update(result.packed, task.shapes)
                total += _message_bytes(Update(result.samples, result.steps, 0.123, result.packed), task.task, number)
                updates.append(BufferedUpdate(f"d{place}", delta, result.samples, state.version, 0))
            state = next_state(state, updates, task.aggregation)
            accuracies.append(runner.evaluate_features(state.weights, self.test).accuracy or 0.0)
            sent.append(total)
        return Rounds(task.training.learning_rate, accuracies, sent)


def _message_bytes(update: Update, task: str, number: int) -> int:
    topic = topics.up("bench", "0", "d0000")
    signed = sign_envelope(SigningKey(bytes(32)), topic, UPDATE, encode_payload(update), sequence=number, task=task)
    return len(signed)
