"""Noised steps: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1, with sums that are exact."""

import copy
import time
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle_runtime.gaussian_integers import Draw, gaussian_integers
from bundle_runtime.graph import Graph, GraphError, GraphSource
from bundle_runtime.samples import Samples
from bundle_runtime.scale_feeds import scale_feeds
from edge_agent.training.engine import BatchPlan, EngineError, OnProgress, Rates, ignore_progress
from edge_agent.training.private.clipped_sum import UNITS_PER_DEVIATION, clipped_sum
from edge_agent.training.private.optimisers import UPDATES, OptimiserState
from edge_agent.training.private.randomness import OF_THE_SYSTEM
from fleet_protocol.bundle_files import SAMPLE_GRADIENTS_FILE
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.task_description import TaskDescription

REPORT_SECONDS: Final = 0.5


class PrivateEngine:
    """Each step: the gradients of the samples that were drawn, clipped and added up; noise; then the optimiser's.

    A batch of more than the graph's rows takes several calls of it. Losses are of samples, so none is told: they are 0.
    """

    def __init__(
        self,
        task: TaskDescription,
        files: Mapping[str, GraphSource],
        threads: int = 1,
        draw: Draw = OF_THE_SYSTEM,
        *,
        samples_alone: bool = False,
    ) -> None:
        """Load the graph; `draw` gives random bytes that nobody can predict. With `samples_alone`, each call of the
        graph sees one sample: no graph can then let a sample speak through the gradients of others, nor by failing.

        Raises:
            EngineError: the task promises no privacy of samples.
            GraphError: see `Graph`.
        """
        if task.sample_privacy is None:
            raise EngineError(f"{task.task} has no [privacy.samples]; export it with that table, or train it without")
        self._privacy: SamplePrivacy = task.sample_privacy
        self._training = task.training
        self._graph = Graph(SAMPLE_GRADIENTS_FILE, files[SAMPLE_GRADIENTS_FILE], threads)
        self._scale = scale_feeds(task)
        self._draw = draw
        self._alone = samples_alone
        self._at_once = 1 if samples_alone else self._training.batch_size
        self._unit = _unit_of(self._privacy)

    def with_noise(self, noise_multiplier: float) -> "PrivateEngine":
        """The same graph with other noise: for devices of one simulation that choose theirs."""
        other = copy.copy(self)
        other._privacy = msgspec.structs.replace(self._privacy, noise_multiplier=noise_multiplier)
        other._unit = _unit_of(other._privacy)
        return other

    def train(
        self,
        weights: FloatVector,
        samples: Samples,
        plan: BatchPlan,
        rates: Rates,
        on_progress: OnProgress = ignore_progress,
    ) -> tuple[FloatVector, FloatVector]:
        """See `TrainingEngine.train`. What is added up is divided by the number of samples that a batch has on average:
        the drawn number would tell whether a sample is in it.

        Raises:
            EngineError, GraphError, MemoryError: the graph fails, or gives other gradients than one for each weight;
                with `samples_alone` only where it does on zeros, which is before the first step.
        """
        nobody = Samples(np.zeros_like(samples.inputs[:1]), np.zeros_like(samples.labels[:1]))
        self._gradients(weights, nobody, plan.seed)  # what fails here is no sample's doing
        anchor, state = weights, OptimiserState.of(weights)
        update = UPDATES[self._training.optimiser]
        losses = np.zeros(len(plan.rows), np.float32)
        share = self._unit / (self._privacy.sampling_rate * len(samples))
        on_progress(0, losses)  # from here on, that a round fails may follow from what was noised, and is paid for
        reported = time.monotonic()
        for step, (rows, mask) in enumerate(zip(plan.rows, plan.mask, strict=True)):
            total = self._sum(weights, samples, rows[mask > 0], plan.seed + step)
            if self._privacy.noise_multiplier:  # 0 where the task and the device's owner want none
                total += gaussian_integers(weights.size, UNITS_PER_DEVIATION, self._draw)
            gradient = (total * share).astype(np.float32) + np.float32(rates.proximal) * (weights - anchor)
            weights = update(weights, gradient, state, rates, self._training.momentum)
            if time.monotonic() - reported >= REPORT_SECONDS:
                on_progress(step + 1, losses[: step + 1])
                reported = time.monotonic()
        on_progress(len(losses), losses)
        return weights, losses

    def _sum(self, weights: FloatVector, samples: Samples, rows: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        """Of the clipped gradients of `rows`, in whole units, f64[P]."""
        total = np.zeros(weights.size, np.float64)
        for start in range(0, len(rows), self._at_once):
            part = rows[start : start + self._at_once]
            try:
                gradients = self._gradients(weights, samples.take(part), seed)
            except (EngineError, GraphError, MemoryError):
                if not self._alone:
                    raise
                continue  # whether it failed, and so whether a round is sent, would tell of this sample
            total += clipped_sum(gradients, self._privacy.clip, self._unit)
        return total

    def _gradients(self, weights: FloatVector, samples: Samples, seed: int) -> NDArray[np.float32]:
        """Of each of the samples, f32[B, P]; `B` is as many as the graph takes at most."""
        padded = samples.take(np.resize(np.arange(len(samples)), self._training.batch_size))
        feeds: dict[str, NDArray[np.generic]] = {
            "weights": weights,
            "inputs": padded.inputs,
            "labels": padded.labels,
            "seed": np.array(seed, np.int64),
            **self._scale,
        }
        gradients = self._graph.run(feeds).get("gradients")
        expected = (self._training.batch_size, weights.size)
        if gradients is None or gradients.shape != expected or gradients.dtype != np.float32:
            seen = "none" if gradients is None else f"{gradients.dtype}{list(gradients.shape)}"
            raise EngineError(
                f"{SAMPLE_GRADIENTS_FILE} gives gradients {seen}, not float32{list(expected)}: a sum of them would not"
                " have the bound that noise is for; export the bundle again"
            )
        return gradients[: len(samples)]


def _unit_of(plan: SamplePrivacy) -> float:
    """What the whole numbers of a sum are multiples of."""
    return (plan.noise_multiplier or 1.0) * plan.clip / UNITS_PER_DEVIATION
