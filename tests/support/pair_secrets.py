"""What a pair's devices keep from the broker, in the forms that a program has it in."""

import json
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle_runtime.blocks import Floats
from bundle_runtime.bundle import Bundle
from bundle_runtime.samples import Samples
from fleet_protocol.codec.row_levels import SCALE_BYTES, code_rows
from tests.support.known_pair import crossings, drawn_picture
from tests.support.plaintext import Secrets, label_texts, pieces, sample_texts

CLASSES = 10


@dataclass(frozen=True, slots=True)
class PairDevice:
    """A device that trains a mini-batch of all its samples, `inputs` f32[N, 145], which are of one class, the last."""

    name: str
    cut: str
    inputs: Floats

    @property
    def pictures(self) -> Floats:
        """Its real ones, f32[N, 144]."""
        return self.inputs[:, :-1]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the mini-batch, i64[N]."""
        return self.inputs[:, -1].astype(np.int64)


def shown_by(device: PairDevice, bundle: Bundle) -> dict[str, list[bytes]]:
    """What would show something of the device: texts of which no piece may be published. Rows of a mini-batch stand by
    themselves, as their order is the device's secret too.
    """
    samples, drawn = Samples(device.pictures, device.labels), Samples(drawn_picture()[None], device.labels[:1])
    texts = {f"real {kind}": [text] for kind, text in sample_texts(samples).items()}
    texts |= {f"drawn {kind}": [text] for kind, text in sample_texts(drawn).items()}
    texts |= {kind: [text] for kind, text in label_texts(device.labels, CLASSES).items()}
    for crossing, values in crossings(bundle, device.cut, device.inputs).items():
        texts |= {f"{crossing}, {kind}": rows for kind, rows in _activation_texts(values).items()}
    return {f"{device.name}: {kind}": text for kind, text in texts.items()}


def secrets_of(texts: dict[str, list[bytes]]) -> Secrets:
    """The same as pieces to search for; labels, which are short, whole."""
    return {
        kind: texts_of_kind if " label" in kind else [piece for text in texts_of_kind for piece in pieces(text)]
        for kind, texts_of_kind in texts.items()
    }


def _activation_texts(values: Floats) -> dict[str, list[bytes]]:
    """Of f32[N, ...], by format. As int8 a generator's, [N, C], are one text: its channels stand one behind the other,
    and all its rows are alike. A discriminator's, [N, 2, C], are one for each row of each call.
    """
    rows = values.reshape(len(values), -1)
    by_channel = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    coded = code_rows(by_channel, "int8", bool(by_channel.min() >= 0))
    levels = coded[SCALE_BYTES * len(by_channel) :]
    length = values[0, 0].size
    alone = [levels[at : at + length] for at in range(0, len(levels), length)]
    return {
        "float32": [row.tobytes() for row in rows],
        "float16": [row.astype(np.float16).tobytes() for row in rows],
        "JSON": [json.dumps(row.tolist()).encode() for row in rows],
        "compact JSON": [msgspec.json.encode(row.tolist()) for row in rows],
        "int8": [coded] if length == 1 else alone,
    }
