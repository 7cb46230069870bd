"""Pictures drawn by a task's model: `draw.onnx` run on latent numbers that a seed fixes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.bundle import Bundle
from bundle_runtime.graph import Graph
from fleet_protocol.bundle_files import DRAW_FILE
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.drawing_plan import DrawingPlan, drawn_classes
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema

MAX_VALUES_AT_ONCE = 1 << 22
"""Of the pictures of one run of the graph, so that memory does not grow with their number."""


class UndrawableError(ConfigurationError):
    """A model draws what is no finite number, or no picture of the task."""


class Drawer:
    """What a bundle and the weights f32[P] of one model draw."""

    def __init__(self, bundle: Bundle, weights: FloatVector) -> None:
        """Load the graph.

        Raises:
            ConfigurationError: the task draws nothing, or its graph can't be loaded.
        """
        task = bundle.description
        if task.drawing is None:
            raise ConfigurationError(
                f"task {task.task!r} draws nothing: its task.toml has no table [drawing]; name a task that has one,"
                " such as one of models/mnist_gan"
            )
        self._task = task.task
        self._plan: DrawingPlan = task.drawing
        self._weights = weights
        self._graph = Graph(DRAW_FILE, bundle.files[DRAW_FILE])
        self.classes = drawn_classes(task.drawing, task.inputs)
        self.picture: InputSchema = task.inputs[task.drawing.picture]

    def check_class(self, *labels: int) -> None:
        """Raise `ConfigurationError` if the task has no such class."""
        for label in labels:
            if label not in self.classes:
                has = f"{self.classes[0]} to {self.classes[-1]}" if self._plan.label else "0, as its pictures have none"
                raise ConfigurationError(f"task {self._task!r} has no class {label}; ask for one of {has}")

    def draw(self, label: int, count: int, seed: int) -> Iterator[NDArray[np.float32]]:
        """Pictures f32[*picture.shape] of a class. Those of a class and seed do not depend on how many are drawn, nor
        on other classes.

        Raises:
            UndrawableError: the weights draw what is no number.
        """
        random = np.random.default_rng([seed, label])
        at_once = max(1, min(count, MAX_VALUES_AT_ONCE // self.picture.size))
        for start in range(0, count, at_once):
            rows = min(at_once, count - start)
            latent = random.standard_normal((rows, self._plan.latent), np.float32)
            labels = np.full(rows, label, np.int64)  # which the graph of a task without classes does not take
            found = self._graph.run({"weights": self._weights, "latent": latent, "labels": labels})["pictures"]
            if found.shape != (rows, *self.picture.shape) or not np.isfinite(found).all():
                raise UndrawableError(
                    f"task {self._task!r}: what this version draws for class {label} is not finite, or no picture of"
                    f" shape {self.picture.shape}; draw with another version"
                )
            yield from found
