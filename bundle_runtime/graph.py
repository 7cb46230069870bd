"""One ONNX graph on onnxruntime. Nothing else of edgeflock imports that: checks, options and errors are the same
everywhere, and its telemetry is off.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.graph_admission import GraphRefusedError, check_graph
from bundle_runtime.graph_checks import GraphInput, why_not_loaded, why_not_taken, why_too_new
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import OnnxVersion

# Read on import: without it onnxruntime 1.32 writes a device id into the home folder and looks up a collector.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
from onnxruntime.capi import _pybind_state as native

__all__ = [
    "Graph",
    "GraphError",
    "GraphSource",
    "ONNXRUNTIME_VERSION",
    "Session",
    "admit_graph",
    "native",
    "open_session",
    "session_options",
]

ONNXRUNTIME_VERSION: str = onnxruntime.__version__
Session: TypeAlias = onnxruntime.InferenceSession

OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory")
"""What onnxruntime says where memory runs out."""

GraphSource = Path | bytes
"""A file, or its content."""


class GraphError(ConfigurationError):
    """A graph can't be loaded here, or contradicts its task; says what to do."""


def session_options(threads: int) -> native.SessionOptions:
    """The options of every session."""
    options = native.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Planned memory would stay beside what the first run took: twice as much, in which nothing is faster
    # (docs/decisions/no-planned-memory.md).
    options.enable_mem_pattern = False
    # Weights that travelled as int8 become float32 once, when the graph is loaded, and not in every run.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # What was checked is ONNX's own format; onnxruntime would read its own too.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def open_session(graph: bytes, options: native.SessionOptions) -> Session:
    """A session on a graph of whose content nothing is checked: one that `admit_graph` gave, or that was made here."""
    return Session(graph, options, providers=["CPUExecutionProvider"])


def admit_graph(name: str, source: GraphSource) -> tuple[bytes, OnnxVersion]:
    """The content of a graph's file, checked, and which ONNX it is written for; `name` is the file's in the bundle.

    Raises:
        GraphError: it has what no graph of a bundle needs.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        version = check_graph(name, data)
    except GraphRefusedError as error:
        raise GraphError(f"{name} {error}; it is not loaded: fetch or export the bundle again") from error
    if reason := why_too_new(name, version):
        raise GraphError(reason)
    return data, version


class Graph:
    """A loaded graph."""

    def __init__(self, name: str, source: GraphSource, threads: int = 1) -> None:
        """`name` is what the bundle calls the file.

        Raises:
            GraphError: it has what no graph of a bundle needs, or this onnxruntime can't read it.
            MemoryError: there is no room for it.
        """
        self._name = name
        data, version = admit_graph(name, source)
        try:
            # Bytes, so that what is loaded is what was checked.
            self._session = open_session(data, session_options(threads))
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            if _is_out_of_memory(error):
                raise MemoryError(f"no room for {name}") from error
            raise GraphError(why_not_loaded(name, version, ONNXRUNTIME_VERSION, str(error))) from error
        self._inputs = [GraphInput.of(entry) for entry in self._session.get_inputs()]
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    @property
    def input_shapes(self) -> dict[str, list[int | str | None]]:
        """The inputs that the graph takes, by name; free axes are text or None."""
        return {entry.name: list(entry.shape) for entry in self._inputs}

    @property
    def output_names(self) -> Sequence[str]:
        """What the graph gives."""
        return self._outputs

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
        """The outputs by their names. `feeds` may contain more than this graph takes.

        Raises:
            GraphError: it takes something that is not in `feeds`, or in another shape or dtype; or fails on its values.
            MemoryError: there is no room for what it computes.
        """
        if reason := why_not_taken(self._name, self._inputs, feeds):
            raise GraphError(reason)
        taken = {entry.name: feeds[entry.name] for entry in self._inputs}
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, taken), strict=True))
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            if _is_out_of_memory(error):
                raise MemoryError(f"no room for what {self._name} computes") from error
            raise GraphError(f"{self._name} can't compute what it is fed: {str(error).strip()}") from error


def _is_out_of_memory(error: Exception) -> bool:
    return any(words in str(error) for words in OUT_OF_MEMORY)
