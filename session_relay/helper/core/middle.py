"""The middle of a model: the blocks that a helper trains for its sessions, whichever of them each session's cut has.

There is one for every task, generation and version that sessions began with, and its sessions share it: a block takes
each session's gradient as it comes. The last update counts less the more others came since its forward pass
(`fleet_protocol.sessions.staleness`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.blocks import Backward, BlockRunner, Floats, Rates
from bundle_runtime.trained_block import TrainedBlock
from fleet_protocol.codec.activations import pack_activations, pack_gradient
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.limits import KIB, MAX_SESSION_MESSAGE_BYTES
from fleet_protocol.sessions.steps import StepAnswer
from fleet_protocol.split_plan import Cut, SplitPlan, is_helpers
from fleet_protocol.task_description import TaskDescription
from session_relay.helper.core.activation_means import ActivationMean, ActivationMeans
from session_relay.helper.core.contribution import Contribution, SessionChanges
from session_relay.helper.core.kept_passes import KeptPass, KeptPasses
from session_relay.helper.core.requests import Asked, ReadRequest, StepRefusedError, groups, read_request, refusal
from session_relay.helper.core.usual_changes import UsualChanges

LARGEST_PACKED_BYTES = MAX_SESSION_MESSAGE_BYTES - KIB
"""Of an answer's values, beside what stands around them."""
MOST_ABANDONED = 2
"""Times `most_in_flight`: passes of a session that are kept, with those of steps that it has abandoned."""
ADDS_UP = ("sgd", "momentum", "nesterov")
"""Optimisers for which a gradient of several mini-batches does as much as those of each."""


@dataclass(frozen=True, slots=True)
class _HeldBlock:
    trained: TrainedBlock
    changes: UsualChanges


@dataclass(frozen=True, slots=True)
class _Passed:
    """A backward request with what its forward pass left."""

    read: ReadRequest
    kept: KeptPass


class Middle:
    """Answers requests of its sessions. Nothing of a request is half done: it changes all its blocks, or none."""

    def __init__(
        self,
        task: TaskDescription,
        plan: SplitPlan,
        runner: BlockRunner,
        weights: FloatVector,
        *,
        kept_bytes: int,
        generator: np.random.Generator,
    ) -> None:
        """`weights` f32[P] are those of the version. Forward passes leave at most `kept_bytes` behind; `generator`
        picks entries where the plan sends random ones.
        """
        self._task = task
        self._plan = plan
        self._runner = runner
        self._rates: Rates = task.training
        self._generator = generator
        self._kept = KeptPasses(kept_bytes)
        self._learned = SessionChanges()
        self._activations = ActivationMeans.of(task.clusters, plan)
        self._cuts: dict[bytes, Cut] = {}
        self._samples: dict[bytes, int] = {}
        self._blocks = {block: self._held(block, weights) for block in helpers_blocks(plan)}
        self._alone = frozenset(
            block for block in self._blocks if not plan.blocks[block].rows_are_alone or runner.draws(block)
        )
        self._trained_alone = self._alone if task.training.optimiser in ADDS_UP else frozenset(self._blocks)

    def open(self, session: bytes, cut: Cut, samples: int = 0) -> None:
        """Serve a session of this cut, whose device trains on so many samples, if that is known."""
        self._cuts[session] = cut
        self._samples[session] = samples
        self._learned.open(session, samples, self._weights_of(cut))

    def close(self, session: bytes) -> None:
        """Forget a session; what it has trained stays."""
        if (cut := self._cuts.pop(session, None)) is not None:
            self._learned.close(session, self._weights_of(cut))
        self._kept.forget(session)
        self.take_activation(session)
        self._samples.pop(session, None)

    @property
    def sessions(self) -> int:
        """How many are open."""
        return len(self._cuts)

    @property
    def kept_bytes(self) -> int:
        """What forward passes have left."""
        return self._kept.size_bytes

    def answer(self, asked: Sequence[Asked]) -> list[StepAnswer]:
        """One answer for each request, in their order. Those that fit together are computed at once, backward passes
        first: those after them meet the newest weights. Each must be new: whoever hands requests up knows repeated ones
        by their numbers.
        """
        answers: dict[int, StepAnswer] = {}
        read = []
        for place, each in enumerate(asked):
            try:
                read.append(self._read(place, each))
            except StepRefusedError as error:
                answers[place] = refusal(each.request, str(error))
        for group in groups(read, "backward", self._trained_alone):
            answers |= self._backward(group)
        for group in groups(read, "forward", self._alone):
            answers |= self._forward(group)
        return [answers[place] for place in range(len(asked))]

    def take_activation(self, session: bytes) -> ActivationMean | None:
        """By what the session's device is told from others; None where nothing is, or by too little."""
        return self._activations.take(session, self._samples.get(session, 0)) if self._activations else None

    def take_contribution(self) -> Contribution | None:
        """What was changed while those sessions were open that have ended since the last one was taken; None where
        that is nothing, such as where all that they had were blocks without weights.
        """
        changes = self._learned.take()
        if not any(each.total.size for each in changes.values()):
            return None
        delta = np.zeros(self._task.parameter_count, np.float32)
        held = [0] * len(self._plan.blocks)
        for block, change in changes.items():
            self._runner.into(delta, block, change.mean)
            held[block] = change.held
        return Contribution(delta, held, max(self._blocks[block].trained.updates for block in changes))

    def _held(self, block: int, weights: FloatVector) -> _HeldBlock:
        trained = TrainedBlock.of(self._runner, block, weights)
        return _HeldBlock(trained, UsualChanges(self._task.largest_delta_norm))

    def _weights_of(self, cut: Cut) -> dict[int, FloatVector]:
        return {block: held.trained.weights for block, held in self._blocks.items() if is_helpers(cut, block)}

    def _company(self, block: int) -> int:
        """Other sessions that train the block. However they take turns, together they move it as far as each device
        moves its own blocks.
        """
        return max(0, sum(is_helpers(cut, block) for cut in self._cuts.values()) - 1)

    def _read(self, place: int, asked: Asked) -> ReadRequest:
        cut = self._cuts.get(asked.session)
        if cut is None:
            raise StepRefusedError("the session is not open here")
        return read_request(place, asked, self._plan, cut, self._task.training.batch_size)

    def _forward(self, group: Sequence[ReadRequest]) -> dict[int, StepAnswer]:
        """Through the blocks at once; what they gave to each is kept."""
        first, end = group[0].request.first, group[0].request.end
        values = np.concatenate([each.values for each in group])
        inputs = []
        for block in range(first, end):
            inputs.append(values)
            values = self._blocks[block].trained.forward(self._runner, values, group[0].request.seed)
        outputs = dict(zip(range(first, end), [*inputs[1:], values], strict=True))
        blocks = [self._blocks[block].trained.now(self._company(block)) for block in range(first, end)]
        answers, start = {}, 0
        for each in group:
            rows = slice(start, start + each.request.rows)
            start = rows.stop
            activation = self._activation(outputs, rows)
            kept = KeptPass([np.array(array[rows]) for array in inputs], blocks, each.request.seed, activation)
            self._kept.keep(each.key, kept, MOST_ABANDONED * self._plan.most_in_flight)
            answers[each.place] = self._answered(each, values[rows])
        return answers

    def _activation(self, outputs: Mapping[int, Floats], rows: slice) -> NDArray[np.float64] | None:
        if self._activations is None or self._activations.block not in outputs:
            return None
        return self._activations.sums(outputs[self._activations.block][rows])

    def _backward(self, group: Sequence[ReadRequest]) -> dict[int, StepAnswer]:
        answers: dict[int, StepAnswer] = {}
        passed: dict[tuple[int, ...], list[_Passed]] = {}
        for each in group:
            kept = self._kept.take(each.key)
            if kept is None:
                words = f"step {each.request.step} has no forward pass through these blocks here, or has none any more"
                answers[each.place] = refusal(each.request, words)
            elif (kept.rows, kept.seed) != (each.request.rows, each.request.seed):
                words = f"step {each.request.step} went forward with {kept.rows} rows and seed {kept.seed}"
                answers[each.place] = refusal(each.request, words)
            else:
                passed.setdefault(kept.updates, []).append(_Passed(each, kept))
        for alike in passed.values():
            answers |= self._all_back(alike)
        return answers

    def _all_back(self, passed: Sequence[_Passed]) -> dict[int, StepAnswer]:
        """Those that met the same weights at once; or one by one, where together they would be refused: for what one of
        them has.
        """
        try:
            gradients = self._pass_back(passed)
        except StepRefusedError as error:
            if len(passed) == 1:
                read = passed[0].read
                return {read.place: refusal(read.request, str(error))}
            alone = [self._all_back([each]) for each in passed]
            return {place: answer for answers in alone for place, answer in answers.items()}
        return {each.read.place: self._answered(each.read, rows) for each, rows in zip(passed, gradients, strict=True)}

    def _pass_back(self, passed: Sequence[_Passed]) -> list[Floats]:
        """The gradient by what each request's forward pass began with; the blocks are trained, where they ask for it.

        Raises:
            StepRefusedError: a block would change by too much; none of them does.
        """
        request = passed[0].read.request
        gradient = np.concatenate([each.read.values for each in passed])
        trained: dict[int, Backward] = {}
        for block in reversed(range(request.first, request.end)):
            place = block - request.first
            held = self._blocks[block].trained
            trained[block] = held.backward(
                self._runner,
                np.concatenate([each.kept.inputs[place] for each in passed]),
                gradient,
                seed=request.seed,
                rates=self._rates,
                then=passed[0].kept.blocks[place],
                passes=len(passed),
                update=request.update,
            )
            gradient = _gradient_of(trained[block], block)
        self._accept(trained, passed, update=request.update)
        ends = np.cumsum([each.kept.rows for each in passed])
        return np.split(gradient, ends[:-1])

    def _accept(self, trained: dict[int, Backward], passed: Sequence[_Passed], *, update: bool) -> None:
        norms, first = {}, passed[0].read.request.first
        for block, result in trained.items():
            held = self._blocks[block]
            change = (result.weights - held.trained.weights).astype(np.float64)
            weight = held.trained.weight_of(passed[0].kept.blocks[block - first], len(passed))
            norms[block] = float(np.linalg.norm(change)) / weight
            if words := held.changes.why_refused(norms[block]):
                raise StepRefusedError(f"block {block}: the step {words}")
        for block, result in trained.items():
            self._blocks[block].trained.accept(result, len(passed) * update)
            if update:
                self._blocks[block].changes.count(norms[block])
                for each in passed:
                    self._learned.count(each.read.key.session, block, each.kept.rows)
        if update:
            self._count_activations(passed)

    def _count_activations(self, passed: Sequence[_Passed]) -> None:
        for each in passed:
            if self._activations and each.kept.activation is not None:
                self._activations.count(each.read.key.session, each.kept.rows, each.kept.activation)

    def _answered(self, read: ReadRequest, values: Floats) -> StepAnswer:
        request = read.request
        if not np.isfinite(values).all():
            return refusal(request, f"blocks {request.first} to {request.end - 1} give values that are not finite")
        if request.direction == "forward":
            packed = pack_activations(values, request.wire)
        else:
            selection, keep = self._plan.gradient_selection, self._plan.gradient_keep
            packed = pack_gradient(values, request.wire, selection, keep, self._generator)
        if len(packed) > LARGEST_PACKED_BYTES:
            words = f"an answer of {len(packed)} bytes, at most {LARGEST_PACKED_BYTES} pass"
            return refusal(request, f"{words}; export the task with smaller batches or another format")
        return StepAnswer(request.number, packed)


def helpers_blocks(plan: SplitPlan) -> list[int]:
    """The blocks that a helper runs in any of the task's cuts."""
    return [block for block in range(len(plan.blocks)) if any(is_helpers(cut, block) for cut in plan.cuts)]


def _gradient_of(result: Backward, block: int) -> Floats:
    if result.input_gradient is None or not np.isfinite(result.input_gradient).all():
        raise StepRefusedError(f"block {block}: the gradient by what it takes is not finite")
    return result.input_gradient
