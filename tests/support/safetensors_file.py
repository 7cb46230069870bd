"""Safetensors files of whatever dtypes, also of those that numpy lacks."""

import json
import struct


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], about: dict[str, str] | None = None) -> bytes:
    """A file written by hand: u64 length of the header, JSON header, with what is said `about` it, data."""
    header: dict[str, object] = {"__metadata__": about} if about else {}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
