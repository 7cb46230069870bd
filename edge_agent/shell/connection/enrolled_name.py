"""The name under which the coordinator has accepted this device's key: it takes that key under no other."""

from pathlib import Path

from fleet_host.new_files import replace_file
from fleet_protocol.errors import ConfigurationError


class EnrolledName:
    """A file in the state folder: the name and the public key, in hex."""

    def __init__(self, folder: Path, device: str, public_key: bytes) -> None:
        self._file = folder / "enrolled-as"
        self._device = device
        self._key = public_key.hex()
        self._is_noted = False

    def check(self) -> None:
        """Compare with what was noted.

        Raises:
            ConfigurationError: this key was accepted under another name; every message would be refused for ever.
        """
        noted = self._noted()
        if noted[1:] == [self._key] and noted[0] != self._device:
            raise ConfigurationError(
                f'device = "{self._device}": the coordinator knows this key as "{noted[0]}" and takes it under no other'
                f' name; write device = "{noted[0]}", or make another key with: edge-agent keygen'
            )

    def _noted(self) -> list[str]:
        """The words of the file; none where there is none, or the card can't give it back: it is noted again."""
        try:
            return self._file.read_text(encoding="utf-8", errors="replace").split()
        except OSError:
            return []

    def note(self) -> None:
        """The coordinator has accepted something that was signed with this key under this name.

        Raises:
            OSError: no room; it is noted with the next one.
        """
        if self._is_noted:
            return
        replace_file(self._file, f"{self._device} {self._key}\n".encode())
        self._is_noted = True
