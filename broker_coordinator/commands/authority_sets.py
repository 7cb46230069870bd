"""Which authorities the coordinator and its devices believe about the broker: now, and at each time before.

`[broker.tls] authority` names the file of those of now. Those of before are beside it, as NAME-before-N: so a device
that was away hears of each in turn.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from fleet_host.certificates import read_authorities, write_authorities
from fleet_host.new_files import replace_file, write_new_file
from fleet_host.program_folder import FILE_MODE
from fleet_protocol.authorities import authorities_id
from fleet_protocol.errors import ConfigurationError


def earlier_files(authority: Path) -> list[Path]:
    """The files of earlier sets, the oldest first."""
    return [path for _, path in sorted(_numbered(authority).items())]


def _numbered(authority: Path) -> dict[int, Path]:
    name = re.compile(f"{re.escape(authority.stem)}-before-([0-9]{{1,6}}){re.escape(authority.suffix)}")
    return {int(match[1]): path for path in authority.parent.iterdir() if (match := name.fullmatch(path.name))}


def authority_sets(authority: Path) -> list[list[bytes]]:
    """Every set, the oldest first, in DER; none where they were never changed.

    Raises:
        ConfigurationError: a file can't be read.
    """
    earlier = earlier_files(authority)
    if not earlier:
        return []
    sets = [read_authorities(path) for path in (*earlier, authority)]
    if authorities_id(sets[-1]) == authorities_id(sets[-2]):  # killed before the newest was written
        del sets[-2]
    return sets


def was_believed(authority: Path, certificates: Sequence[bytes]) -> bool:
    """Whether these were a set before that of now.

    Raises:
        ConfigurationError: a file can't be read.
    """
    name = authorities_id(certificates)
    return any(authorities_id(each) == name for each in authority_sets(authority)[:-1])


def replace_authorities(authority: Path, certificates: Sequence[bytes]) -> None:
    """Let other authorities be believed from the next start on; the set of now is kept beside them.

    Raises:
        ConfigurationError: a set can't be read, or devices have left this one behind.
        OSError: one can't be written; then that of now stays.
    """
    before = read_authorities(authority)
    if was_believed(authority, certificates):
        raise ConfigurationError(
            "devices believed exactly these authorities before, and never go back; first: authority renew, then switch"
        )
    earlier = earlier_files(authority)
    if not earlier or authorities_id(read_authorities(earlier[-1])) != authorities_id(before):
        number = max(_numbered(authority), default=-1) + 1
        kept = authority.with_name(f"{authority.stem}-before-{number}{authority.suffix}")
        write_new_file(kept, write_authorities(before).encode(), FILE_MODE, authority.stat())
    write_in_place(authority, certificates)


def write_in_place(authority: Path, certificates: Sequence[bytes]) -> None:
    """Write the file of those of now.

    Raises:
        OSError: it can't be written, and stays as it is.
    """
    replace_file(authority, write_authorities(certificates).encode(), FILE_MODE)


def require_room(certificates: Sequence[bytes], most: int) -> None:
    """Refuse a set that devices would not take.

    Raises:
        ConfigurationError: it is too large.
    """
    if len(certificates) > most:
        raise ConfigurationError(
            f"{len(certificates)} authorities, at most {most} are believed at once; first: authority drop"
        )
