"""Reads the PNG files that edgeflock writes."""

import struct
import zlib

import numpy as np

from bundle_runtime.pictures import Pixels


def pixels_in(file: bytes) -> Pixels:
    """What a PNG file of one data chunk and unfiltered rows holds."""
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, _, colours = struct.unpack(">IIBB", file[16:26])
    (size,) = struct.unpack(">I", file[33:37])
    rows = np.frombuffer(zlib.decompress(file[41 : 41 + size]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, *([3] if colours == 2 else []))
