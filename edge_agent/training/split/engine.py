"""The training engine of a round in which a helper runs some blocks: several steps under way, and what goes wrong.

A step is abandoned where an answer is wrong or its session is gone: what it has changed on the device is taken back,
and its mini-batch begins anew. So of the device's blocks a step changes all or none. What a helper has made of its
blocks stays there: they take each gradient as it comes (docs/decisions/abandoned-steps.md).
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from bundle_runtime.blocks import BlockRunner, Floats
from bundle_runtime.distance_correlation import penalty_gradient
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, OnProgress, Rates, ignore_progress
from edge_agent.training.split.conversation import Answered, Conversation, StepUnderWay, WrongAnswer
from edge_agent.training.split.exchange import Exchange, SessionFailedError, SessionGone
from edge_agent.training.split.own_blocks import OwnBlocks
from edge_agent.training.split.pace import Pace
from edge_agent.training.split.step import MiniBatches, NotFiniteError, Step, StepPlan
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_placement import legs_of, passes_of
from fleet_protocol.split_plan import Cut, SplitPlan, device_blocks
from fleet_protocol.task_description import TaskDescription

MOST_TROUBLE: Final = 8
"""Wrong answers and moved sessions, without a step done in between, after which a round gives up."""
REPORT_SECONDS: Final = 0.5


class SplitEngine:
    """Trains through an `Exchange`, as a `TrainingEngine` does alone."""

    def __init__(
        self,
        task: TaskDescription,
        plan: SplitPlan,
        cut: Cut,
        runner: BlockRunner,
        *,
        exchange: Exchange,
        generator: np.random.Generator,
        clock: Callable[[], float],
    ) -> None:
        """`runner` has the graphs of the device's blocks; `generator` must be one that the helper can't know; `clock`
        gives seconds.
        """
        self._task = task
        self._plan = plan
        self._cut = cut
        self._runner = runner
        self._pace = Pace(plan.most_in_flight, clock)
        self._conversation = Conversation(exchange, plan, generator, self._pace)
        self.abandoned = 0
        """Steps that had to begin anew."""

    def train(
        self,
        weights: FloatVector,
        samples: Samples,
        plan: BatchPlan,
        rates: Rates,
        on_progress: OnProgress = ignore_progress,
    ) -> tuple[FloatVector, FloatVector]:
        """As `TrainingEngine.train`. Of `weights` f32[P] only the device's blocks are read, and only they change. A
        round whose values are not finite any more ends there, and its last loss is NaN.

        Raises:
            SessionFailedError: the session is gone for good, or its helper gives wrong answers.
            GraphError: bundle and samples contradict each other.
        """
        common = StepPlan(
            self._plan,
            legs_of(self._plan, self._cut),
            passes_of(self._plan, self._task.buffered_blocks),
            rates,
            self._runner.log_priors(samples.labels),
            partial(penalty_gradient, self._task, weight) if (weight := self._plan.distance_correlation) else None,
        )
        blocks = OwnBlocks(self._runner, device_blocks(self._plan, self._cut), weights)
        steps = _Steps(common, blocks, MiniBatches(samples, plan), self._conversation, self._pace)
        try:
            losses = steps.run(on_progress)
        finally:
            self.abandoned = steps.abandoned
        return blocks.into(weights), losses


class _Steps:
    """The steps of one round: those that wait, and those under way."""

    def __init__(
        self, common: StepPlan, blocks: OwnBlocks, batches: MiniBatches, conversation: Conversation, pace: Pace
    ) -> None:
        self._common = common
        self._blocks = blocks
        self._batches = batches
        self._conversation = conversation
        self._pace = pace
        self._waiting = deque(range(len(batches)))
        self._under_way: list[StepUnderWay] = []
        self._begun = 0
        self._trouble = 0
        self._losses = np.full(len(batches), np.nan, np.float32)
        self.abandoned = 0

    def run(self, on_progress: OnProgress) -> FloatVector:
        """The loss of each step, f32[K]; where one is not finite, those before it and NaN."""
        reported = self._pace.clock()
        try:
            while self._waiting or self._under_way:
                self._go_on()
                done = self._losses[~np.isnan(self._losses)]
                is_over = not (self._waiting or self._under_way)
                if done.size and (is_over or self._pace.clock() - reported >= REPORT_SECONDS):
                    reported = self._pace.clock()
                    on_progress(done.size, done)
        except NotFiniteError:
            done = self._losses[: int(np.argmax(np.isnan(self._losses)))]
            return np.append(done, np.float32(np.nan))
        return self._losses

    def _go_on(self) -> None:
        """Begin as many steps as the pace asks for, then take one answer."""
        while self._waiting and len(self._under_way) < self._pace.in_flight:
            self._begin(self._waiting.popleft())
        if not self._under_way:
            return
        match self._conversation.next():
            case Answered(under_way, values):
                self._advance(under_way, values)
            case WrongAnswer(under_way, words):
                if under_way is not None:
                    self._abandon(under_way)
                self._count_trouble(f"the helper answers wrong: {words}")
            case SessionGone(words, moved):
                for each in reversed(self._under_way.copy()):
                    self._abandon(each)
                if not moved:
                    raise SessionFailedError(words)
                self._count_trouble(words)

    def _begin(self, number: int) -> None:
        step = Step(self._batches[number], self._common, self._blocks, self._pace.in_flight - 1)
        under_way = StepUnderWay(step, step.walk(), self._begun)
        self._begun += len(self._common.passes)
        self._under_way.append(under_way)
        self._advance(under_way, None)

    def _advance(self, under_way: StepUnderWay, values: Floats | None) -> None:
        """On to what the step asks next, or to its end."""
        started = self._pace.clock()
        try:
            ask = next(under_way.walk) if values is None else under_way.walk.send(values)
        except StopIteration as end:
            self._losses[under_way.step.batch.number] = end.value
            self._under_way.remove(under_way)
            self._pace.computed(under_way.seconds + self._pace.clock() - started)
            self._trouble = 0
            return
        under_way.seconds += self._pace.clock() - started
        self._conversation.ask(under_way, ask)

    def _abandon(self, under_way: StepUnderWay) -> None:
        under_way.walk.close()
        self._blocks.take_back(reversed(under_way.step.changes))
        self._under_way.remove(under_way)
        self._waiting.appendleft(under_way.step.batch.number)
        self.abandoned += 1

    def _count_trouble(self, words: str) -> None:
        self._trouble += 1
        if self._trouble >= MOST_TROUBLE:
            raise SessionFailedError(f"{words}; that was the {self._trouble}th time without a step done in between")
