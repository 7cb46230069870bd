"""A fleet of one: samples arrive one by one, the trigger fires, the real worker trains, a version comes of its update.

What runs is what ships: the sample store, the intake, the worker process, error feedback, the
update's codec and the coordinator's step. Between device and coordinator there is no broker.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import initial_state, next_state
from bundle_runtime.graph import Graph
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.sources.schema_check import check_sample
from edge_agent.worker.contract import TrainingJob, TrainingResult, Withheld, files_for
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, PREDICT_FILE, WEIGHTS_FILE
from fleet_protocol.codec import decode_update, read_weights, write_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sample_line import Sample
from fleet_protocol.task_description import TaskDescription

WORKER = WorkerSettings(memory_limit_mib=1024, time_limit_seconds=1800)


@dataclass(frozen=True, slots=True)
class Device:
    """A device with one task; `new_samples` as in its trigger, `maximum_samples` as in its store."""

    bundle: Path
    folder: Path
    new_samples: int
    maximum_samples: int = 10_000

    @property
    def description(self) -> TaskDescription:
        """The task, with every update a version of its own: there is no other device to wait for."""
        described = parse_description((self.bundle / DESCRIPTION_FILE).read_bytes())
        alone = msgspec.structs.replace(described.aggregation, buffer_size=1, strategy="fedbuff", server_momentum=0.0)
        return msgspec.structs.replace(described, aggregation=alone)

    def live(self, inputs: Sequence[NDArray[np.float32]], labels: Sequence[float | None]) -> FloatVector:
        """Take the samples in, in this order, training whenever the trigger fires; the weights f32[P] of the end.

        Raises:
            RuntimeError: a round failed.
            ValueError: a sample doesn't fit the task.
        """
        description = self.description
        state = initial_state(
            read_weights((self.bundle / WEIGHTS_FILE).read_bytes(), description.parameters), description.aggregation
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        store = SampleStore(self.folder / "samples.db", self.maximum_samples)
        residual = b""
        try:
            for number, (values, label) in enumerate(zip(inputs, labels, strict=True), start=1):
                sample = Sample(description.task, values.ravel().tolist(), label)
                store.add(description.task, *check_sample(sample, description))
                if number % self.new_samples == 0:
                    state, residual = self._round(description, state, residual, store, number // self.new_samples)
        finally:
            store.close()
        return state.weights

    def _round(
        self, description: TaskDescription, state: ServerState, residual: bytes, store: SampleStore, seed: int
    ) -> tuple[ServerState, bytes]:
        weights = self.folder / WEIGHTS_FILE
        weights.write_bytes(write_weights(state.weights, description.parameters))
        job = training_job(self.bundle, description, weights, store.path, residual=residual, seed=seed)
        verdict = asyncio.run(train_in_child(job, WORKER))
        if isinstance(verdict, Withheld):
            return state, residual
        if not isinstance(verdict, TrainingResult):
            raise RuntimeError(f"{description.task}: round {seed} failed: {verdict}")  # noqa: TRY004 - not a wrong argument
        delta = decode_update(verdict.packed, description.shapes)
        update = BufferedUpdate("device", delta, verdict.samples, base_version=state.version, staleness=0)
        return next_state(state, [update], description.aggregation), verdict.residual


def training_job(
    bundle: Path, description: TaskDescription, weights: Path, samples: Path, *, residual: bytes = b"", seed: int = 0
) -> TrainingJob:
    """The job that the agent would give its worker."""
    return TrainingJob(
        description=description,
        engine=WORKER.engine,
        files={name: str(bundle / name) for name in files_for(WORKER.engine, description)},
        weights=str(weights),
        sample_store=str(samples),
        residual=residual,
        returned=[],
        seed=seed,
        life=1,
        threads=WORKER.threads,
        nice=WORKER.nice,
        memory_limit_mib=WORKER.memory_limit_mib,
        cpu_limit_seconds=600,
    )


def predict(bundle: Path, weights: FloatVector, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the model gives for each of the inputs f32[N, *shape]."""
    return Graph(PREDICT_FILE, bundle / PREDICT_FILE).run({"weights": weights, "inputs": inputs})["scores"]


def accuracy(bundle: Path, weights: FloatVector, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of the samples whose highest score is that of their label."""
    return float((predict(bundle, weights, inputs).argmax(axis=1) == labels).mean())
