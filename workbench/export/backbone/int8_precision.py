"""Which weights of an int8 backbone need a second int8 tensor, so that features stay those of float32.

Eight bits leave each layer an error of about 1 %, and the errors of fifty layers add up. A second tensor takes a byte
more for each weight and leaves one of 0.004 %.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto

from bundle_runtime.graph import Graph
from fleet_protocol.bundle_files import BACKBONE_FILE
from workbench.export.backbone.int8_weights import quantisable, quantise_weights
from workbench.export.conversion.onnx_conversion import checked_model

LARGEST_ERROR: Final = 0.0075
"""Of the features, relative to their norm, on random inputs; for others 1 % is promised."""

Floats = NDArray[np.float32]


def terms_of_weights(graph: GraphProto, inputs: Floats) -> dict[str, int]:
    """Name of each weight tensor to how many int8 tensors keep the features of `inputs` f32[N, *shape] within
    `LARGEST_ERROR`: 1, or 2 for those whose error is the largest for their bytes.
    """
    exact = _features(graph, inputs, {})
    once = dict.fromkeys(quantisable(graph), 1)

    def error(terms: Mapping[str, int]) -> float:
        return float(
            np.linalg.norm(_features(graph, inputs, terms) - exact) / max(np.linalg.norm(exact), np.finfo("f4").tiny)
        )

    if error(once) <= LARGEST_ERROR:
        return once
    sizes = {each.name: int(np.prod(each.dims)) for each in graph.initializer}
    harms = {name: error({name: 1}) ** 2 / sizes[name] for name in once}
    by_harm = sorted(once, key=lambda name: harms[name], reverse=True)
    low, high = 0, len(by_harm)
    while high - low > 1:  # `low` are too few; all of them are as good as it gets
        middle = (low + high) // 2
        low, high = (
            (low, middle) if error(once | dict.fromkeys(by_harm[:middle], 2)) <= LARGEST_ERROR else (middle, high)
        )
    return once | dict.fromkeys(by_harm[:high], 2)


def _features(graph: GraphProto, inputs: Floats, terms: Mapping[str, int]) -> Floats:
    quantised = GraphProto()
    quantised.CopyFrom(graph)
    quantise_weights(quantised, terms)
    return Graph(BACKBONE_FILE, checked_model(quantised).SerializeToString()).run({"inputs": inputs})["features"]
