"""The worker's first step where a version came packed: unpack it into the file that the round trains from."""

import os
from collections.abc import Sequence
from pathlib import Path

from edge_agent.worker.contract import PackedFile
from fleet_protocol.bundle_files import verify_blob
from fleet_protocol.codec import apply_difference, read_weights, write_weights
from fleet_protocol.errors import ProtocolError
from fleet_protocol.parameter import Parameter


class RebuildError(Exception):
    """Packed weights do not give the file that the manifest names; says why."""


def rebuild(packed: PackedFile, weights: Path, parameters: Sequence[Parameter]) -> None:
    """Write the version that is `packed` to `weights`: whole and verified, or not at all.

    Raises:
        RebuildError: the difference is malformed, its base was damaged, or the result has another SHA-256.
        OSError: no room.
    """
    try:
        base = read_weights(Path(packed.base).read_bytes(), parameters) if packed.base else None
        shapes = [parameter.shape for parameter in parameters]
        content = write_weights(apply_difference(base, packed.difference, shapes), parameters)
        verify_blob("rebuilt weights", content, packed.sha256)
    except (ProtocolError, FileNotFoundError) as error:
        raise RebuildError(str(error)) from error
    unfinished = weights.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(weights)
