"""Which authorities this device believes about the broker: those of agent.toml, or the last that followed them.

A file in the state folder has their certificates, and above them the names of all sets that were trusted before. A
device follows each set once and never goes back, whatever is replayed to it; other certificates in agent.toml, which
are none of those sets, begin anew.
"""

import logging
import re
from pathlib import Path

import msgspec

from fleet_host.broker_settings import BrokerSettings
from fleet_host.certificates import check_authorities, parse_authorities, read_authorities, write_authorities
from fleet_host.log_lines import log_line
from fleet_host.new_files import replace_file
from fleet_protocol.authorities import authorities_id
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason

FILE = "authorities.crt"
MAX_PINNED_SETS = 1000
"""That one device follows, one after the other."""
_TRUSTED = re.compile("^trusted ([0-9a-f]{16})$", re.MULTILINE)

logger = logging.getLogger(__name__)


class PinnedAuthorities:
    """Those in `folder`; `configured` is the file that agent.toml names.

    Raises:
        ConfigurationError: that file can't be used.
    """

    def __init__(self, folder: Path, configured: Path) -> None:
        self._own = folder / FILE
        first = authorities_id(read_authorities(configured))
        found = self._read()
        follows = first in found
        self._trusted = found if follows else [first]
        self.file = self._own if follows else configured
        """What TLS is to believe."""

    @property
    def newest(self) -> bytes:
        """The name of the set that is trusted."""
        return self._trusted[-1]

    def follow(self, authorities: list[bytes]) -> None:
        """Trust these in the place of the others; they are on the disk when this returns.

        Raises:
            ProtocolError: `SEQUENCE_REUSED`: this device has trusted them before. `MALFORMED`: they are no
                certificates of authorities. `OUT_OF_BOUNDS`: too many were followed.
            OSError: they can't be written, and are not trusted.
        """
        name = authorities_id(authorities)
        if name in self._trusted:
            raise ProtocolError(
                Reason.SEQUENCE_REUSED, f"authorities {name.hex()} were followed before; none come back"
            )
        if len(self._trusted) >= MAX_PINNED_SETS:
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS, f"{len(self._trusted)} sets of authorities were followed, no more"
            )
        try:
            check_authorities(authorities)
        except ValueError as error:
            raise ProtocolError(Reason.MALFORMED, f"authorities {name.hex()}: {error}") from error
        trusted = [*self._trusted, name]
        lines = "".join(f"trusted {each.hex()}\n" for each in trusted)
        replace_file(self._own, (lines + write_authorities(authorities)).encode())
        self._trusted, self.file = trusted, self._own

    def _read(self) -> list[bytes]:
        """None where there is no file, or the card can't give it back: then the configured ones are trusted again."""
        try:
            return _parse(self._own.read_text(encoding="ascii"))
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError, ConfigurationError) as error:
            remedy = "none if the broker is reached; else put the authority's certificate in its place in agent.toml"
            logger.warning(log_line("authorities_unreadable", file=self._own, error=error, remedy=remedy))
            return []


def _parse(text: str) -> list[bytes]:
    """The names of the sets that were trusted; the last is that of the certificates.

    Raises:
        ConfigurationError: the file was cut off or changed.
    """
    trusted = [bytes.fromhex(name) for name in _TRUSTED.findall(text)]
    if not trusted or authorities_id(parse_authorities(text, FILE)) != trusted[-1]:
        raise ConfigurationError("it was cut off or changed")
    return trusted


def pinned_authorities(state_folder: Path, broker: BrokerSettings) -> PinnedAuthorities | None:
    """Those of a device; None where the broker speaks no TLS, or is known by more authorities than can be followed, as
    a hosted one is by those of the whole web.
    """
    if broker.tls is None:
        return None
    try:
        return PinnedAuthorities(state_folder, broker.tls.authority)
    except ConfigurationError:  # of a file that is of no use at all, the TLS settings say so
        return None


def believing(broker: BrokerSettings, authority: Path) -> BrokerSettings:
    """The same settings with another file of authorities."""
    if broker.tls is None:
        return broker
    return msgspec.structs.replace(broker, tls=msgspec.structs.replace(broker.tls, authority=authority))
