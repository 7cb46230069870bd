"""Graphs: whatever the check takes, protobuf's own reader finds nothing in it that no bundle may have."""

from collections.abc import Iterator

from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, NodeProto, TensorProto, load_model_from_string

from bundle_runtime.graph_admission import STANDARD_DOMAINS, GraphRefusedError, check_graph
from bundle_runtime.onnx_fields import REFUSED
from fleet_protocol.bundle_files import TRAIN_FILE
from tests.support.graphs import loop, model_of, nested, reader_of
from workbench.recipe_folder import find_recipe


def check_any_graph(data: bytes) -> None:
    """Both readers see the same model, and it is one that a bundle may have."""
    try:
        version = check_graph(TRAIN_FILE, data)
    except GraphRefusedError as error:
        assert str(error)
        return
    try:
        model: ModelProto = load_model_from_string(data)
    except DecodeError:  # damaged where the check does not look: onnxruntime refuses it too
        return
    opsets = [entry.version for entry in model.opset_import if entry.domain.encode() in STANDARD_DOMAINS]
    assert opsets == [version.opset]
    assert model.ir_version % 2**64 == version.ir_version
    for message in _inside(model):
        present = {field.number for field, _ in message.ListFields()}
        assert not any((type(message).__name__, number) in REFUSED for number in present)
        if isinstance(message, TensorProto):
            assert not message.data_location
        if isinstance(message, NodeProto):
            assert message.domain.encode() in STANDARD_DOMAINS


def _inside(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                yield from _inside(each)


GRAPHS = [
    *((find_recipe("digits") / "bundle" / name).read_bytes() for name in ("predict.onnx", "train.onnx")),
    model_of(loop(3)).SerializeToString(),
    model_of(nested(2)).SerializeToString(),
    reader_of("../../device.key"),
]
