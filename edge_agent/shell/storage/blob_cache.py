"""Files of bundles and versions on the device, named by their SHA-256."""

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from fleet_host.log_lines import log_line
from fleet_protocol.bundle_files import verify_blob
from fleet_protocol.errors import ProtocolError, Reason

logger = logging.getLogger(__name__)

UNFINISHED = ".part"
"""Suffix of a file that is being written: here, or by a process that unpacks weights (`training.rebuild`)."""


class BlobCache:
    """A folder of content-addressed files; each was verified before it got its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, blob: str) -> Path:
        """Where a blob is, or would be."""
        return self._folder / blob

    def has(self, blob: str) -> bool:
        """Whether it is here."""
        return self.path(blob).exists()

    def read(self, blob: str) -> bytes:
        """Its content, verified again: an SD card may have damaged it.

        Raises:
            ProtocolError: `WRONG_HASH`; the file is deleted, and the next round fetches it again.
        """
        data = self.path(blob).read_bytes()
        try:
            verify_blob(f"blob {blob[:16]}", data, blob)
        except Exception:
            self.path(blob).unlink()
            raise
        return data

    def verify(self, blob: str) -> None:
        """Check its content again, as `read` does, without loading it into memory.

        Raises:
            ProtocolError: `WRONG_HASH`; the file is deleted.
        """
        if (found := _hash_of(self.path(blob))) != blob:
            self.path(blob).unlink()
            raise ProtocolError(Reason.WRONG_HASH, f"blob {blob[:16]}: its SHA-256 has become {found[:16]}…")

    def write(self, blob: str, data: bytes) -> None:
        """Store a verified blob under its name: whole, or not at all.

        Raises:
            ProtocolError: `WRONG_HASH`: `data` is not what the name says.
            OSError: no room.
        """
        verify_blob(f"blob {blob[:16]}", data, blob)
        unfinished = self.path(blob).with_suffix(UNFINISHED)
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path(blob))

    def keep_only(self, blobs: Iterable[str]) -> None:
        """Delete everything else; what can't be deleted stays, and is said."""
        wanted = set(blobs)
        for file in self._folder.iterdir():
            if file.name in wanted:
                continue
            try:
                file.unlink()
            except OSError as error:
                remedy = "move it away; if it repeats, check the card"
                logger.warning(log_line("blob_not_deleted", file=file.name, error=error, remedy=remedy))


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
