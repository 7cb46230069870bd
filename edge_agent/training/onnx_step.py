"""The default engine: the bundle's plain ONNX training graph on the stock onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime

from edge_agent.training.engine import BatchPlan, Rates, Samples
from fleet_protocol.codec.sparse import FloatVector


class OnnxStepEngine:
    """All K steps ride in one call: the graph loops over the mini-batches in a `Scan`."""

    def __init__(self, train_graph: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(train_graph, options, providers=["CPUExecutionProvider"])

    def train(
        self, weights: FloatVector, samples: Samples, plan: BatchPlan, rates: Rates
    ) -> tuple[FloatVector, FloatVector]:
        """See `TrainingEngine.train`. A graph takes only what its task has use for."""
        feeds = {
            "weights": weights,
            "inputs": samples.inputs,
            "labels": samples.labels,
            "batches": plan.rows,
            "mask": plan.mask,
            "learning_rate": np.array(rates.learning_rate, np.float32),
            "weight_decay": np.array(rates.weight_decay, np.float32),
            "gradient_clip": np.array(rates.gradient_clip or np.inf, np.float32),
            "proximal": np.array(rates.proximal, np.float32),
            "seed": np.array(plan.seed, np.int64),
        }
        taken = {entry.name: feeds[entry.name] for entry in self._session.get_inputs()}
        trained, losses = self._session.run(["trained_weights", "losses"], taken)
        return trained, losses
