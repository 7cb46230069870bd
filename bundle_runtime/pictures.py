"""Samples as pictures: their values as pixels, several in a grid, and PNG files of them."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.sample_schema import InputSchema

Pixels = NDArray[np.uint8]
"""A grey picture [H, W], or one in red, green and blue [H, W, 3]."""


def pixels_of(values: NDArray[np.float32], schema: InputSchema) -> Pixels:
    """What values [H, W], [1, H, W] or [3, H, W] look like, where the schema's minimum is black and its maximum white.

    Values beyond those are black and white too.
    """
    if values.ndim == 3:
        values = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    spread = max(schema.maximum - schema.minimum, 1e-9)
    share = (values.astype(np.float64) - schema.minimum) / spread
    return np.clip(255 * share, 0, 255).astype(np.uint8)


def grid(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Pictures of one size side by side, with a black line between them; a shorter row ends in black."""
    height, width, *colours = rows[0][0].shape
    columns = max(len(row) for row in rows)
    whole = np.zeros([len(rows) * (height + 1) - 1, columns * (width + 1) - 1, *colours], np.uint8)
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            top, left = down * (height + 1), across * (width + 1)
            whole[top : top + height, left : left + width] = picture
    return whole


def png(pixels: Pixels) -> bytes:
    """A PNG file (ISO 15948): a signature, a header, one block of compressed rows, an end."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
