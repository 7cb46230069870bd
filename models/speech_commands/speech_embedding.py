"""Makes backbone.onnx out of the two files of Google's speech embedding that `make speech-embedding` fetches.

    sound f32[N, 16000] -> levels of 32 mel bands, 97 frames -> three windows of 76 frames -> the mean of their features

The front end limits levels to 80 dB below the loudest of all samples in a call; here it is the loudest of each sample,
so that features do not depend on what stands beside it.

Usage: python models/speech_commands/speech_embedding.py FOLDER OUT
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

SAMPLES = 16_000
FEATURES = 96
LOUDEST = 32_768.0
"""The front end takes the numbers of 16-bit sound."""
WINDOW_FRAMES = 76
WINDOW_STARTS = (0, 8, 16)
"""In frames of 10 ms, 80 ms apart, as the embedding's makers move it."""
OPSET = 13
IR_VERSION = 8
FRONT_END, EMBEDDING = "melspectrogram.onnx", "embedding_model.onnx"


def backbone(front_end: onnx.ModelProto, embedding: onnx.ModelProto) -> onnx.ModelProto:
    """Both as one model, from `inputs` f32[N, 16000], -1 to 1, to `features` f32[N, 96]."""
    constants = {
        "loudest": np.float32(LOUDEST),
        "tenth": np.float32(0.1),
        "two": np.float32(2.0),
        "frames_axis": np.array([2]),
        "by_window": np.array([len(WINDOW_STARTS), -1, FEATURES]),
    }
    cuts = []
    for place, start in enumerate(WINDOW_STARTS):
        constants |= {f"start_{place}": np.array([start]), f"end_{place}": np.array([start + WINDOW_FRAMES])}
        names = ["levels", f"start_{place}", f"end_{place}", "frames_axis"]
        cuts.append(helper.make_node("Slice", names, [f"window_{place}"]))
    nodes = [
        helper.make_node("Mul", ["inputs", "loudest"], ["sound"]),
        *_nodes(front_end, "front_", "sound", "decibels"),
        helper.make_node("Mul", ["decibels", "tenth"], ["bels"]),
        helper.make_node("Add", ["bels", "two"], ["levels"]),
        *cuts,
        helper.make_node("Concat", [cut.output[0] for cut in cuts], ["windows"], axis=0),
        *_nodes(embedding, "embedding_", "windows", "embedded"),
        helper.make_node("Reshape", ["embedded", "by_window"], ["of_windows"]),
        helper.make_node("ReduceMean", ["of_windows"], ["features"], axes=[0], keepdims=0),
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    for model, prefix in ((front_end, "front_"), (embedding, "embedding_")):
        for weight in model.graph.initializer:
            weight.name = prefix + weight.name
            weights.append(weight)
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "speech_embedding",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["N", SAMPLES])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES])],
        [weight for weight in weights if weight.name in used],
    )
    made = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.checker.check_model(made, full_check=True)
    return made


def _nodes(model: onnx.ModelProto, prefix: str, given: str, wanted: str) -> list[NodeProto]:
    """The nodes of one file, its names behind a prefix but for what it is given and what is wanted of it."""
    names = {model.graph.input[0].name: given, model.graph.output[0].name: wanted, "": ""}
    for node in model.graph.node:
        node.name = prefix + node.name
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.get(name, prefix + name)
        if node.op_type == "ReduceMax":
            del node.attribute[:]
            node.attribute.extend([helper.make_attribute("axes", [1, 2, 3]), helper.make_attribute("keepdims", 1)])
        if node.op_type == "Clip" and node.output[0] == wanted:
            node.op_type = "Max"  # its least is one number for each sample now, and it has no most
            del node.input[2:]
    return list(model.graph.node)


def main(folder: Path, out: Path) -> None:
    """Read the two files in `folder`, and write `out`."""
    made = backbone(onnx.load(folder / FRONT_END), onnx.load(folder / EMBEDDING))
    out.write_bytes(made.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
