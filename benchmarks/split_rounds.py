"""Devices and one helper in this process: rounds of split learning whose requests wait as they would on a slow link.

Each device runs in a thread of its own and stops where it waits for an answer. When all wait, the helper answers the
oldest request of as many as it serves at once; so a run is the same whenever it is repeated. Only waiting takes time:
as many steps are under way as the plan allows.
"""

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bundle_runtime.blocks import BlockRunner
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.split.engine import SplitEngine
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from fleet_protocol.split_plan import Cut, SplitPlan, device_blocks, is_helpers
from fleet_protocol.task_description import TaskDescription
from session_relay.helper.core.middle import Middle, helpers_blocks
from session_relay.helper.core.requests import Asked

KEPT_BYTES = 1 << 30


@dataclass
class Traffic:
    """Bytes of values each way, by the steps that they were for."""

    to_helper: int = 0
    to_device: int = 0
    steps: int = 0


@dataclass
class SharedHelper:
    """A middle that answers `at_once` devices of those that wait, once all of the `devices` do."""

    middle: Middle
    traffic: Traffic
    devices: int
    at_once: int
    _answered: Counter[int] = field(default_factory=Counter)
    _asked: dict[int, deque[StepRequest]] = field(default_factory=dict)
    _answers: dict[int, StepAnswer] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: set[int] = field(default_factory=set)

    def send(self, device: int, request: StepRequest) -> None:
        """A device asks."""
        with self._changed:
            self._asked.setdefault(device, deque()).append(request)
            self.traffic.to_helper += len(request.packed)

    def receive(self, device: int) -> StepAnswer:
        """A device waits for its next answer."""
        with self._changed:
            self._waiting.add(device)
            self._answer_if_all_wait()
            self._changed.wait_for(lambda: device in self._answers)
            answer = self._answers.pop(device)
            self.traffic.to_device += len(answer.packed)
            return answer

    def leave(self, device: int) -> None:
        """A device has ended its round."""
        with self._changed:
            self.devices -= 1
            self._answer_if_all_wait()

    def _answer_if_all_wait(self) -> None:
        if not self._waiting or len(self._waiting) < self.devices:
            return
        places = sorted(self._waiting, key=lambda device: (self._answered[device], device))[: self.at_once]
        asked = [Asked(_session(device), self._asked[device].popleft()) for device in places]
        self._answers |= dict(zip(places, self.middle.answer(asked), strict=True))
        self._waiting.difference_update(places)
        self._answered.update(places)
        self._changed.notify_all()


@dataclass
class DeviceLine:
    """One device's way to the helper, as its engine uses it, and its clock: each wait takes a second, nothing else any
    time.
    """

    helper: SharedHelper
    device: int
    now: float = 0.0

    def send(self, request: StepRequest) -> None:
        """Ask."""
        self.helper.send(self.device, request)

    def receive(self) -> StepAnswer:
        """Wait for the next answer."""
        self.now += 1
        return self.helper.receive(self.device)

    def clock(self) -> float:
        """The time."""
        return self.now


@dataclass(frozen=True)
class SplitFleet:
    """Devices, each with its samples and its cut, that share the middle of a model."""

    task: TaskDescription
    plan: SplitPlan
    files: dict[str, bytes]
    parts: Sequence[Samples]
    cuts: Sequence[Cut]
    at_once: int
    """Requests that the helper finds waiting; from it answers those that fit together at once."""

    def round(self, weights: FloatVector, steps: int, seed: int, traffic: Traffic) -> FloatVector:
        """The next version f32[P] after a round of so many steps on each device.

        Each block of a device's is the mean over those that held it, by samples; where the helper held it too, that
        counts for the samples that it was trained with.
        """
        helper_runner = BlockRunner(self.task, self.files, helpers_blocks(self.plan))
        generator = np.random.default_rng(seed)
        middle = Middle(self.task, self.plan, helper_runner, weights, kept_bytes=KEPT_BYTES, generator=generator)
        for device, cut in enumerate(self.cuts):
            middle.open(_session(device), cut, len(self.parts[device]))
        helper = SharedHelper(middle, traffic, len(self.cuts), self.at_once)
        trained: dict[int, FloatVector] = {}

        def run(device: int) -> None:
            try:
                trained[device] = self._train(device, weights, steps, seed, helper)
            finally:
                helper.leave(device)

        threads = [threading.Thread(target=run, args=(device,)) for device in range(len(self.cuts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        traffic.steps += steps * len(self.cuts)
        return self._averaged(weights, trained, middle)

    def _train(self, device: int, weights: FloatVector, steps: int, seed: int, helper: SharedHelper) -> FloatVector:
        samples, cut = self.parts[device], self.cuts[device]
        runner = BlockRunner(self.task, self.files, device_blocks(self.plan, cut))
        line = DeviceLine(helper, device)
        engine = SplitEngine(
            self.task,
            self.plan,
            cut,
            runner,
            exchange=line,
            generator=np.random.default_rng((seed, device)),
            clock=line.clock,
        )
        batches = plan_batches(len(samples), steps, self.task.training.batch_size, seed * 1000 + device)
        return engine.train(weights, samples, batches, Rates.planned(self.task.training))[0]

    def _averaged(self, weights: FloatVector, trained: dict[int, FloatVector], middle: Middle) -> FloatVector:
        for device in range(len(self.cuts)):
            middle.close(_session(device))
        contribution = middle.take_contribution()
        held = np.zeros((len(self.cuts) + 1, len(self.plan.blocks)))
        for device, cut in enumerate(self.cuts):
            held[device] = [0 if is_helpers(cut, block) else len(self.parts[device]) for block in range(held.shape[1])]
        deltas = [trained[device] - weights for device in range(len(self.cuts))]
        if contribution is not None:
            held[-1] = contribution.held
            deltas.append(contribution.delta)
        shares = held / np.maximum(held.sum(axis=0), 1)
        block_of = np.repeat(
            [each.block for each in self.task.parameters], [each.size for each in self.task.parameters]
        )
        change = sum((shares[i][block_of] * delta for i, delta in enumerate(deltas)), np.zeros(weights.size))
        return np.array(weights + change, np.float32)


def _session(device: int) -> bytes:
    return device.to_bytes(16, "big")
