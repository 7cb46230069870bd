"""A task bundle as a folder, read whole and verified."""

import stat
from dataclasses import dataclass
from pathlib import Path

from fleet_protocol.bundle import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    TaskDescription,
    blob_hash,
    parse_description,
    verify_bundle,
)
from fleet_protocol.codec import Grid, read_weights
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.limits import MAX_BLOB_BYTES


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle folder. `hash` is that of its `task.json`."""

    description: TaskDescription
    files: dict[str, bytes]

    @property
    def hash(self) -> str:
        """SHA-256 of `task.json`, which identifies the bundle."""
        return blob_hash(self.files[DESCRIPTION_FILE])

    @property
    def weights(self) -> bytes:
        """The safetensors file of version 0."""
        return self.files[WEIGHTS_FILE]

    def grid(self) -> Grid | None:
        """The grid that published versions lie on, if the task rounds them."""
        plan = self.description.downlink
        if plan.differences != "lossy":
            return None
        first = read_weights(self.weights, self.description.parameters)
        return Grid.below(first, self.description.shapes, plan.precision_bits)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle folder and verify every file in it.

    Raises:
        ConfigurationError: naming the file that is missing, altered, too large or not what the description says.
    """
    text = _read_file(folder / DESCRIPTION_FILE)
    description = parse_description(text, str(folder / DESCRIPTION_FILE))
    for name in description.files:
        if Path(name).name != name:
            raise ConfigurationError(f"{folder / DESCRIPTION_FILE}: file name {name!r} contains a folder")
    files = {DESCRIPTION_FILE: text} | {name: _read_file(folder / name) for name in description.files}
    try:
        verify_bundle(files)
        read_weights(files[WEIGHTS_FILE], description.parameters)
    except ProtocolError as error:
        raise ConfigurationError(f"bundle {folder}: {error.detail}") from error
    return Bundle(description, files)


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BLOB_BYTES:
            raise ConfigurationError(
                f"{path}: {status.st_size} bytes; a bundle contains regular files of at most {MAX_BLOB_BYTES}"
            )
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; export the bundle again") from error
