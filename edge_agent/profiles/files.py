"""Reads profiles: by name or path, with all that they inherit, and what a site's file puts over them."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from edge_agent.profiles.board import Board, best_fitting
from edge_agent.profiles.profile import Limits, Profile
from fleet_protocol.configuration import convert_document, parse_table
from fleet_protocol.errors import ConfigurationError, why_unreadable

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (_PACKAGE / "firmware_profiles", _PACKAGE.parent / "firmware_profiles")
"""In an installed wheel, and in a checkout."""
PROFILE_ENDING = ".toml"
MAX_SHOWN_CHARACTERS = 80
"""Of a name, in an error."""

Table = dict[str, object]
Shape = TypeVar("Shape", Profile, Limits)


def read_profile(name: str, site: Path | None = None) -> Profile:
    """A profile by its name, such as `pi-4`, or by the path of its file; `site` is a file whose limits go over its own.

    Raises:
        ConfigurationError: there is none, it is wrong, or it contradicts itself; the message lists those that ship.
    """
    path = profile_file(name)
    document, chain = _with_inherited(path, ())
    profile = convert_document(document, Profile, ", which inherits from ".join(map(str, chain)))
    return profile if site is None else _over(document, Profile, site)


def limits_of_site(site: Path) -> Limits:
    """What a site's file says of devices without a profile.

    Raises:
        ConfigurationError: it can't be read, or names the key that is unknown or wrong.
    """
    return _over({}, Limits, site)


def detected_profile(board: Board) -> str:
    """The name of the shipped profile that is the most exact for a board; `generic` where none is for it."""
    return best_fitting(board, {name: read_profile(name) for name in shipped_profiles()})


def profile_file(name: str) -> Path:
    """The file of a profile: one that ships, such as `pi-4`, or any other by its path.

    Raises:
        ConfigurationError: there is none; the message lists those that ship.
    """
    for path in [Path(name)] if names_a_file(name) else [folder / f"{name}{PROFILE_ENDING}" for folder in FOLDERS]:
        if _is_file(path):
            return path
    shipped = shipped_profiles()
    near = difflib.get_close_matches(name, shipped, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    shown = name[:MAX_SHOWN_CHARACTERS]
    raise ConfigurationError(f"profile {shown}: no such file; edgeflock ships {', '.join(shipped)}{meant}")


def names_a_file(profile: str) -> bool:
    """Whether it is a path; else it is the name of one that ships."""
    return profile.endswith(PROFILE_ENDING) or "/" in profile


def shipped_profiles() -> list[str]:
    """Their names."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob(f"*{PROFILE_ENDING}")})


def merged(below: Mapping[str, object], above: Mapping[str, object]) -> Table:
    """Two documents as one: tables key by key, anything else as `above` has it."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        lower, upper = below[key], above[key]
        if isinstance(lower, dict) and isinstance(upper, dict):
            both[key] = merged(lower, upper)
    return both


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _with_inherited(path: Path, above: tuple[Path, ...]) -> tuple[Table, tuple[Path, ...]]:
    """A profile's document with what it inherits, and the files that it is from, itself first."""
    chain = (*above, path)
    if path.resolve() in map(Path.resolve, above):
        circle = " -> ".join(map(str, chain))
        raise ConfigurationError(f"profiles inherit in a circle: {circle}; take one `inherits` out")
    own = _read(path)
    inherits = own.get("inherits")
    if not isinstance(inherits, str) or not inherits:
        return own, chain
    base, chain = _with_inherited(_inherited_file(inherits, path), chain)
    return merged(base, own), chain


def _inherited_file(inherits: str, path: Path) -> Path:
    try:
        return profile_file(str(path.parent / inherits) if names_a_file(inherits) else inherits)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: inherits = {inherits!r}: {error}") from error


def _over(document: Table, shape: type[Shape], site: Path) -> Shape:
    """`document` with a site's limits over it."""
    own = _read(site)
    if unknown := sorted(own.keys() - set(Limits.__struct_fields__)):
        tables = ", ".join(f"[{each}]" for each in Limits.__struct_fields__)
        raise ConfigurationError(f"{site}: {unknown[0]!r} can't be set for a site; its tables are {tables}")
    return convert_document(merged(document, own), shape, str(site))


def _read(path: Path) -> Table:
    try:
        return parse_table(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, 'name a profile that ships')}") from error
