"""The files of a task bundle: their names, and the hashes that they are known by."""

import hashlib
from typing import Annotated

import msgspec

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_BLOB_BYTES

DESCRIPTION_FILE = "task.json"
TRAIN_FILE = "train.onnx"
EVALUATE_FILE = "evaluate.onnx"
PREDICT_FILE = "predict.onnx"
TRAIN_PER_SAMPLE_FILE = "train_per_sample.onnx"
"""Only in a bundle whose plan asks for per-sample gradients."""
SAMPLE_GRADIENTS_FILE = "sample_gradients.onnx"
"""Only in a bundle that promises sample-level privacy."""
BACKBONE_FILE = "backbone.onnx"
"""Only in a bundle whose description has a `backbone`."""
DRAW_FILE = "draw.onnx"
"""Only in a bundle whose description has a `drawing`; devices do not fetch it."""
PLAIN_FILE = "plain.onnx"
"""Only in a bundle whose model is compressed: from its weights to those of the plain one. Devices do not fetch it."""
KEY_HOLDER_FILE = "key_holder.key"
"""Only in a bundle whose `[privacy.masks]` has a `key_holder`: what its updates are encrypted for."""
WEIGHTS_FILE = "weights.safetensors"
ORT_TRAINING_FILE = "ort_training.onnx"
ORT_OPTIMISER_FILE = "ort_optimiser.onnx"
ORT_CHECKPOINT_FILE = "ort_checkpoint.bin"
"""Only in a bundle that was exported for the engine `ort-training` too; formats of onnxruntime-training 1.19.2."""
REQUIRED_FILES = (TRAIN_FILE, EVALUATE_FILE, PREDICT_FILE, WEIGHTS_FILE)

BlobHash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


def blob_hash(data: bytes) -> str:
    """A file's content address: its SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def verify_blob(name: str, data: bytes, expected_hash: str) -> None:
    """Check one file against its content address.

    Raises:
        ProtocolError: `TOO_LARGE` or `WRONG_HASH`.
    """
    if len(data) > MAX_BLOB_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"{name}: {len(data)} bytes exceed MAX_BLOB_BYTES ({MAX_BLOB_BYTES})")
    if blob_hash(data) != expected_hash:
        raise ProtocolError(
            Reason.WRONG_HASH,
            f"{name}: SHA-256 of its {len(data)} bytes is {blob_hash(data)[:16]}…, expected {expected_hash[:16]}…;"
            " the file is truncated or altered: fetch or export it again",
        )
