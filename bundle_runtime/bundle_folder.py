"""A task bundle as a folder, read whole and verified."""

import stat
from pathlib import Path

from bundle_runtime.bundle import Bundle
from fleet_protocol.bundle import parse_description, verify_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError, ProtocolError, why_unreadable
from fleet_protocol.limits import MAX_BLOB_BYTES

NO_BUNDLE = "name a folder that `edgeflock export` wrote, or export the bundle again"


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
        raise ConfigurationError(f"{path}: {why_unreadable(error, NO_BUNDLE)}") from error
