"""Writes an order to a card, so that it can be written again, or taken back."""

import hashlib
from collections.abc import Callable, Mapping

import msgspec

from edge_agent.profiles import shipped_profiles
from edge_agent.profiles.files import FOLDERS, MAX_SHOWN_CHARACTERS
from fleet_protocol.document_errors import NOT_JSON
from fleet_protocol.errors import ConfigurationError
from workbench.flashing.boot_partition import BootPartition
from workbench.flashing.card_files import (
    FOLDER,
    NEEDED,
    SCRIPTS,
    WRITTEN_BY,
    Files,
    System,
    card_files,
    has_settings,
    system_of,
)
from workbench.flashing.order import Order

RECORD = f"{FOLDER}/undo.json"
SPARE_BYTES = 1024 * 1024
"""Left free on the card, and room for what a file takes beyond its bytes."""


Carried = Callable[[Order, System], Files]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What flash did to a card: SHA-256 of each file that it writes, and what was there before, None for nothing."""

    written: dict[str, str]
    before: dict[str, bytes | None]


def flash(card: BootPartition, where: str, order: Order, carried: Carried, *, replace: bool) -> System:
    """Write the order, in the place of an earlier one; returns what the card holds.

    `carried` gives the packages that the card carries. `replace` takes the place of settings that somebody else has
    written. If anything fails, the card is as it was before it was flashed for the first time.

    Raises:
        ConfigurationError: the card can't take it; what to do.
    """
    try:
        names = card.names()
        system = system_of(names)
        if system is None:
            lacks = next(name for name in NEEDED if name not in names)
            raise ConfigurationError(
                f"{where}: no boot partition of Raspberry Pi OS: it has no {lacks}; name another card"
            )
        record = _record(card, names, where)
        changed = [*WRITTEN_BY[system], "meta-data", "cmdline.txt"]
        before: dict[str, bytes | None] = {name: card.read(name) if name in names else None for name in changed}
        before |= {name: content for name, content in record.before.items() if name in changed}
        if not replace:
            _refuse_settings(where, system, before)
        files = card_files(order, system, before, _scripts(), carried(order, system))
        _check_room(card, where, files)
        kept = {name: before.get(name) for name in files}
        for name in record.written.keys() - files.keys():
            _put_back(card, name, record.before.get(name))
        _write(card, files, kept)
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror or error}; check the card") from error
    return system


def undo(card: BootPartition, where: str) -> None:
    """Put back what was there before the card was flashed.

    Raises:
        ConfigurationError: it was not flashed, or has been changed since.
    """
    try:
        names = card.names()
        if RECORD not in names:
            raise ConfigurationError(f"{where}: nothing to undo: flash has not written to this card")
        record = _record(card, names, where)
        for name, before in record.before.items():
            now = card.read(name) if name in names and not name.startswith(f"{FOLDER}/") else before
            if now != before and (now is None or _digest(now) != record.written[name]):
                raise ConfigurationError(
                    f"{where}: {name} has been changed since the card was flashed, perhaps by its first boot;"
                    " write the image to it anew"
                )
        _put_all_back(card, record)
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror or error}; check the card") from error


def check_profile(name: str) -> None:
    """Refuse what no card can name.

    Raises:
        ConfigurationError: edgeflock ships no such profile.
    """
    if name not in (shipped := shipped_profiles()):
        shown = name[:MAX_SHOWN_CHARACTERS]
        raise ConfigurationError(
            f"profile {shown}: edgeflock ships none of that name; choose one of {', '.join(shipped)}"
        )


def _write(card: BootPartition, files: Files, before: dict[str, bytes | None]) -> None:
    """The record first: from then on, everything can be taken back. The command line last: it starts the rest."""
    record = Record({name: _digest(content) for name, content in files.items()}, before)
    try:
        card.write(RECORD, msgspec.json.encode(record))
        for name in sorted(files, key=lambda name: (name == "cmdline.txt", name)):
            card.write(name, files[name])
    except BaseException:
        _put_all_back(card, record)
        raise


def _put_all_back(card: BootPartition, record: Record) -> None:
    for name in record.written:
        _put_back(card, name, record.before.get(name))
    card.remove(RECORD)


def _put_back(card: BootPartition, name: str, content: bytes | None) -> None:
    if content is None:
        card.remove(name)
    else:
        card.write(name, content)


def _record(card: BootPartition, names: frozenset[str], where: str) -> Record:
    if RECORD not in names:
        return Record({}, {})
    try:
        return msgspec.json.decode(card.read(RECORD), type=Record)
    except NOT_JSON as error:
        raise ConfigurationError(f"{where}: {RECORD} is damaged ({error}); write the image to the card anew") from error


def _refuse_settings(where: str, system: System, before: Mapping[str, bytes | None]) -> None:
    for name in WRITTEN_BY[system]:
        if has_settings(before.get(name) or b""):
            raise ConfigurationError(
                f"{where}: {name} has settings already, perhaps Raspberry Pi Imager's; give Wi-Fi and user to flash,"
                " and replace them with --replace"
            )
    if b"systemd.run=" in (before["cmdline.txt"] or b""):
        raise ConfigurationError(f"{where}: cmdline.txt runs another script at first boot; write the image anew")


def _check_room(card: BootPartition, where: str, files: Files) -> None:
    needed, free = sum(map(len, files.values())) + SPARE_BYTES, card.free_bytes()
    if needed > free:
        raise ConfigurationError(
            f"{where}: {needed / 1e6:.1f} MB are needed on the boot partition and {free / 1e6:.1f} are free; make room"
            " there, or flash without --offline"
        )


def _scripts() -> Files:
    folder = next(each / "first-boot" for each in FOLDERS if each.is_dir())
    return {name: (folder / name).read_bytes() for name in SCRIPTS}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
