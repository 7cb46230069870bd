"""Which coordinator key this device trusts: that of agent.toml, or the last of those that followed it.

A file in the state folder has them, the oldest first, below their number. A device follows each key once and never goes
back, whatever is replayed to it; another `coordinator_key` in agent.toml, which is none of them, begins anew.
"""

import logging
from pathlib import Path

from fleet_host.log_lines import log_line
from fleet_host.new_files import replace_file
from fleet_protocol.counted_lines import read_counted, write_counted
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.keys import VerifyKey, read_verify_key, write_verify_key

FILE = "coordinator-keys"
MAX_PINNED_KEYS = 1000
"""That one device follows, one after the other: a rotation a month for eighty years."""

logger = logging.getLogger(__name__)


class PinnedKeys:
    """The keys in `folder`, the oldest first; the last is trusted."""

    def __init__(self, folder: Path, configured: VerifyKey) -> None:
        self._file = folder / FILE
        found = self._read()
        self._keys = found if configured in found else [configured]

    @property
    def newest(self) -> VerifyKey:
        """The one that is trusted."""
        return self._keys[-1]

    def follow(self, successor: VerifyKey) -> None:
        """Trust `successor`, for which the newest key vouches, in its place; it is on the disk when this returns.

        Raises:
            ProtocolError: `SEQUENCE_REUSED`: this device has trusted it before. `OUT_OF_BOUNDS`: too many.
            OSError: it can't be written, and is not trusted.
        """
        if successor in self._keys:
            raise ProtocolError(
                Reason.SEQUENCE_REUSED, f"key {write_verify_key(successor)} was followed before; none comes back"
            )
        if len(self._keys) >= MAX_PINNED_KEYS:
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS,
                f"{len(self._keys)} keys were followed, at most {MAX_PINNED_KEYS} are: write what"
                " `broker-coordinator key` prints as coordinator_key in agent.toml",
            )
        keys = [*self._keys, successor]
        replace_file(self._file, write_counted(map(write_verify_key, keys)).encode())
        self._keys = keys

    def _read(self) -> list[VerifyKey]:
        """None where there is no file, or the card can't give it back: then the configured key is trusted again."""
        try:
            lines = read_counted(self._file.read_text(encoding="ascii"), FILE) or [""]
            return [read_verify_key(line, FILE, "the coordinator") for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError, ConfigurationError) as error:
            remedy = "none if coordinator_key in agent.toml is the newest: write what `broker-coordinator key` prints"
            logger.warning(log_line("pinned_keys_unreadable", file=self._file, error=error, remedy=remedy))
            return []
