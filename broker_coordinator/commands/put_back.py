"""Puts a backup's small files where they belong: what is missing comes back, and what is there stays."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from broker_coordinator.commands.authority_sets import authority_sets
from broker_coordinator.commands.places import ServerPlaces
from broker_coordinator.configuration import PROGRAM, CoordinatorConfiguration, load_configuration
from fleet_host.certificates import parse_authorities
from fleet_host.configuration_file import parse_with_paths
from fleet_host.key_files import read_key_ring_file
from fleet_host.new_files import write_new_file
from fleet_host.program_folder import AUTHORITY, FOLDER_MODE, give_to
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import read_key_ring, write_verify_key

OWNER_ALONE = 0o600
ANYBODY_READS = 0o644
CERTIFICATES = ".crt"


def put_back(files: Mapping[str, bytes], places: ServerPlaces, fleet: str) -> Iterator[str]:
    """Write `files`, by `configuration/NAME` and `authority/NAME`; yields what was done with each, in words.

    Raises:
        ConfigurationError: what is there is another coordinator's; nothing was written.
        OSError: one can't be written.
    """
    targets = _targets(files, places)
    key_file = places.configuration.parent / _configuration(places, targets).key_file
    _require_same_coordinator(places, fleet, key_file, targets)
    former = _is_former_authority(places, targets)
    for path, content in targets.items():
        if former and path.is_relative_to(places.authority):
            continue
        if path.exists():
            yield f"{'is there' if path.read_bytes() == content else 'is there, and differs: it stays'}: {path}"
            continue
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        write_new_file(path, content, ANYBODY_READS if path.suffix == CERTIFICATES else OWNER_ALONE)
        if not path.is_relative_to(places.authority):
            give_to(PROGRAM, path.parent, path)
        yield f"put back: {path}"
    if former:
        yield f"is there, and follows that of the backup: {places.authority}"


def require_inside(files: Mapping[str, bytes], places: ServerPlaces, folder: Path) -> None:
    """Refuse to put a backup into another `folder` than its own, and its database over that of the server it is of.

    Raises:
        ConfigurationError: the configuration that would be put back there names a database elsewhere.
    """
    if places.configuration.exists():
        return
    named = places.configuration.parent / _configuration(places, _targets(files, places)).database
    if named.exists() and not named.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError(
            f"--folder {folder}: coordinator.toml in the backup names the database {named}, which is there and not in"
            f" that folder; to try the backup, put a copy of coordinator.toml at {places.configuration}, write another"
            " `database` into it, and run this again"
        )


def _targets(files: Mapping[str, bytes], places: ServerPlaces) -> dict[Path, bytes]:
    return {_place(name, places): content for name, content in files.items()}


def _place(name: str, places: ServerPlaces) -> Path:
    folder, _, file = name.partition("/")
    return (places.authority if folder == "authority" else places.configuration.parent) / file


def _configuration(places: ServerPlaces, targets: Mapping[Path, bytes]) -> CoordinatorConfiguration:
    """The backup's own, in which paths are as they are written.

    Raises:
        ConfigurationError: it has none, or one that can't be read.
    """
    if places.configuration not in targets:
        raise ConfigurationError(
            f"there is no {places.configuration.name} in the backup; name the file as it was then, with --config"
        )
    return parse_with_paths(targets[places.configuration], CoordinatorConfiguration, str(places.configuration))


def _require_same_coordinator(places: ServerPlaces, fleet: str, key_file: Path, targets: Mapping[Path, bytes]) -> None:
    away = f"move {places.configuration.parent}, {places.broker} and {places.authority} away, and run this again"
    if places.configuration.exists() and (found := load_configuration(places.configuration).fleet) != fleet:
        raise ConfigurationError(
            f"{places.configuration} is of fleet {found!r}, the backup of {fleet!r}; if that is meant, {away}"
        )
    if key_file in targets:
        trusted = read_key_ring(targets[key_file].decode("ascii", errors="replace"), "the backup's key")[0]
        if key_file.exists() and trusted not in read_key_ring_file(key_file, PROGRAM):
            raise ConfigurationError(
                f"{key_file} is another coordinator's: devices trust {write_verify_key(trusted.verify_key)}, which the"
                f" backup has; {away}"
            )
    certificate = places.authority / AUTHORITY
    if _differs(certificate, targets) and not _is_former_authority(places, targets):
        raise ConfigurationError(f"{certificate} is another authority's than devices trust; {away}")


def _differs(path: Path, targets: Mapping[Path, bytes]) -> bool:
    return path in targets and path.exists() and path.read_bytes() != targets[path]


def _is_former_authority(places: ServerPlaces, targets: Mapping[Path, bytes]) -> bool:
    """Whether devices have followed from the backup's authority to the one that is there (`authority renew`)."""
    certificate, trusted = places.authority / AUTHORITY, places.configuration.parent / AUTHORITY
    if not _differs(certificate, targets) or not trusted.exists():
        return False
    try:
        (backed_up,) = parse_authorities(targets[certificate].decode("ascii", errors="replace"), str(certificate))
        return any(backed_up in each for each in authority_sets(trusted))
    except ConfigurationError:
        return False
