"""A device's round and a helper's middle joined in one process, on the shipped task that has blocks."""

from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from bundle_runtime.blocks import BlockRunner
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, Rates, plan_batches
from edge_agent.training.split.engine import SplitEngine
from edge_agent.training.split.exchange import SessionGone
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from fleet_protocol.split_plan import Cut, SplitPlan, device_blocks
from fleet_protocol.task_description import TaskDescription
from session_relay.helper.core.contribution import Contribution
from session_relay.helper.core.middle import Middle, helpers_blocks
from session_relay.helper.core.requests import Asked

FOLDER = Path(__file__).parents[2] / "models" / "mnist_cnn" / "bundle"
KEPT_BYTES = 64 << 20
SESSION = b"s" * 16
Received = StepAnswer | SessionGone
Alter = Callable[[StepRequest, StepAnswer], list[Received]]


@cache
def shipped() -> Bundle:
    """The task."""
    return load_bundle(FOLDER)


def shipped_weights() -> FloatVector:
    """Those of its version 0."""
    return read_weights(shipped().weights, shipped().description.parameters)


def plan_of(task: TaskDescription, **changes: object) -> SplitPlan:
    """The task's plan with exact values, one step at a time, or as `changes` say."""
    assert task.split is not None
    exact = {"activations": "float32", "gradients": "float32", "most_in_flight": 1}
    return msgspec.structs.replace(task.split, **exact | changes)


def pictures(count: int, seed: int = 1) -> Samples:
    """Noise of MNIST's shape, with labels."""
    generator = np.random.default_rng(seed)
    return Samples(generator.random((count, 1, 28, 28), np.float32), generator.integers(0, 10, count))


def middle_of(bundle: Bundle, plan: SplitPlan, weights: FloatVector, kept_bytes: int = KEPT_BYTES) -> Middle:
    """A helper's middle of that version."""
    runner = BlockRunner(bundle.description, bundle.files, helpers_blocks(plan))
    return Middle(bundle.description, plan, runner, weights, kept_bytes=kept_bytes, generator=np.random.default_rng(2))


def as_it_is(_request: StepRequest, answer: StepAnswer) -> list[Received]:
    """What an honest helper answers."""
    return [answer]


class DirectExchange:
    """Requests go straight to a middle. `alter` makes of each answer what the device receives; waiting takes a second
    of its clock, and nothing else any time.
    """

    def __init__(self, middle: Middle, alter: Alter = as_it_is, session: bytes = SESSION) -> None:
        self.middle = middle
        self.asked: list[StepRequest] = []
        self.most_waiting = 0
        self._waiting = deque[StepRequest]()
        self._received = deque[Received]()
        self.alter = alter
        self._session = session
        self._now = 0.0

    def send(self, request: StepRequest) -> None:
        """Ask."""
        self.asked.append(request)
        self._waiting.append(request)
        self.most_waiting = max(self.most_waiting, len(self._waiting))

    def receive(self) -> Received:
        """Wait for the next answer."""
        self._now += 1
        while not self._received:
            request = self._waiting.popleft()
            answer = self.middle.answer([Asked(self._session, request)])[0]
            self._received.extend(self.alter(request, answer))
        received = self._received.popleft()
        if isinstance(received, SessionGone):
            self._waiting.clear()
            self._received.clear()
        return received

    def contribution(self) -> Contribution | None:
        """What the session leaves when it has ended."""
        self.middle.close(self._session)
        return self.middle.take_contribution()

    def clock(self) -> float:
        """The time."""
        return self._now


def engine_of(bundle: Bundle, plan: SplitPlan, cut: Cut, exchange: DirectExchange) -> SplitEngine:
    """The device's side of a round."""
    return SplitEngine(
        bundle.description,
        plan,
        cut,
        BlockRunner(bundle.description, bundle.files, device_blocks(plan, cut)),
        exchange=exchange,
        generator=np.random.default_rng(3),
        clock=exchange.clock,
    )


def rates_of(task: TaskDescription) -> Rates:
    """Those of the task's plan."""
    return Rates.planned(task.training)


def batches_of(samples: Samples, steps: int, batch_size: int) -> BatchPlan:
    """So many mini-batches without padding."""
    return plan_batches(len(samples), steps, batch_size, seed=7)
