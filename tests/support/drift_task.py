"""The digits' bundle for a task that corrects drift: its training graph has the correction as an input.

The shipped graph steps by plain SGD, so that adding a vector to each gradient is taking it, times the learning rate,
from each step's weights. `tests/export/test_corrected_steps.py` has what an export makes.
"""

import shutil
from pathlib import Path

import msgspec
import onnx
from onnx import TensorProto, helper

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, TRAIN_FILE, blob_hash
from fleet_protocol.task_description import TaskDescription
from tests.support.digits_rounds import FOLDER


def correcting(task: TaskDescription, **training: object) -> TaskDescription:
    """The task with SCAFFOLD's correction, and other settings of `training`."""
    plan = msgspec.structs.replace(task.training, **{"correction": "scaffold"} | training)
    return msgspec.structs.replace(task, training=plan)


def correcting_bundle(folder: Path, **training: object) -> Bundle:
    """Written to `folder`."""
    shutil.copytree(FOLDER, folder)
    return correct(folder, **training)


def correct(folder: Path, **training: object) -> Bundle:
    """Let the digits' bundle in `folder` correct drift, and have other settings of `training`."""
    graph = corrected_graph((folder / TRAIN_FILE).read_bytes())
    (folder / TRAIN_FILE).write_bytes(graph)
    task = correcting(parse_description((folder / DESCRIPTION_FILE).read_bytes()), **training)
    task = msgspec.structs.replace(task, files=task.files | {TRAIN_FILE: blob_hash(graph)})
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(task))
    return load_bundle(folder)


def corrected_graph(train_graph: bytes) -> bytes:
    """A training graph of plain SGD without running statistics, with the input `correction`."""
    model = onnx.load_from_string(train_graph)
    graph = model.graph
    (size,) = (each.dim_value for each in graph.input[0].type.tensor_type.shape.dim)
    graph.input.append(helper.make_tensor_value_info("correction", TensorProto.FLOAT, [size]))
    (scan,) = (node for node in graph.node if node.op_type == "Scan")
    body = next(each.g for each in scan.attribute if each.name == "body")
    weights = body.output[0].name
    body.output[0].name = "step.corrected"
    rate = next(each.name for each in body.input if each.name.endswith("learning_rate"))
    body.node.append(helper.make_node("Mul", [rate, "correction"], ["step.correction"]))
    body.node.append(helper.make_node("Sub", [weights, "step.correction"], ["step.corrected"]))
    return model.SerializeToString()
