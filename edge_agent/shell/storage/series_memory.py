"""What series of named readings keep over a restart, as a file in the state folder.

After a power cut it is as it was `SAVE_SECONDS` ago at most: windows begin again, and samples that waited for a label
since then are missing.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from edge_agent.preparation.preparation import PreparationState
from fleet_host.log_lines import log_line
from fleet_host.new_files import replace_file

FILE = "readings.json"
SAVE_SECONDS = 600.0
"""Between two writes of the file, for the sake of the card."""

logger = logging.getLogger(__name__)


class SeriesMemory:
    """Writes the file at most every `SAVE_SECONDS`, when readings come; `monotonic` gives seconds."""

    def __init__(self, folder: Path, monotonic: Callable[[], float]) -> None:
        self._file = folder / FILE
        self._monotonic = monotonic
        self._written = monotonic()

    def read(self) -> dict[str, PreparationState]:
        """By series; nothing where there is no file, or none of this release."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, PreparationState])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning(log_line("series_forgotten", file=FILE, error=error, remedy="none: windows begin again"))
            return {}

    def is_due(self) -> bool:
        """Whether it is time to write again."""
        return self._monotonic() - self._written >= SAVE_SECONDS

    def write(self, states: Mapping[str, PreparationState]) -> None:
        """Replace the file, as a whole; where the card can't be written, the one before stays."""
        self._written = self._monotonic()
        if not states:
            return
        try:
            replace_file(self._file, msgspec.json.encode(states))
        except OSError as error:
            logger.warning(log_line("series_not_kept", file=FILE, error=error, remedy="make room on the disk"))
