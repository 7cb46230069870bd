"""The default engine: the bundle's plain ONNX training graph on the stock onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime

from edge_agent.training.engine import BatchPlan, Samples
from fleet_protocol.codec.sparse import FloatVector


class OnnxStepEngine:
    """All K steps ride in one call: the graph loops over the mini-batches in a `Scan`."""

    def __init__(self, train_graph: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(train_graph, options, providers=["CPUExecutionProvider"])

    def train(
        self, weights: FloatVector, samples: Samples, plan: BatchPlan, learning_rate: float
    ) -> tuple[FloatVector, FloatVector]:
        """See `TrainingEngine.train`."""
        feeds = {
            "weights": weights,
            "inputs": samples.inputs,
            "labels": samples.labels,
            "batches": plan.rows,
            "mask": plan.mask,
            "learning_rate": np.array(learning_rate, np.float32),
        }
        trained, losses = self._session.run(["trained_weights", "losses"], feeds)
        return trained, losses
