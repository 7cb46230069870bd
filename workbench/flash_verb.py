"""`edgeflock flash`: its options."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_protocol.errors import ConfigurationError, why_unreadable
from workbench.flashing.boot_partition import opened
from workbench.flashing.cards import flash_cards
from workbench.flashing.flash import undo as undo_card
from workbench.flashing.fleet_file import card_of, read_fleet
from workbench.flashing.order import MAX_SSH_KEY_CHARACTERS

COMMAND = "flash"


def _option(metavar: str, words: str, **more: Any) -> Any:
    return typer.Option(metavar=metavar, help=words, **more)


def flash(
    *,
    profile: Annotated[str, _option("PROFILE", "Kind of device; see edgeflock profiles list.")] = "",
    name: Annotated[str, _option("NAME", "The device's name.")] = "",
    invitation: Annotated[
        str, _option("LINE", "What the coordinator's invitation says.", envvar="EDGEFLOCK_INVITATION")
    ] = "",
    boot: Annotated[Path | None, _option("FOLDER", "The card's mounted boot partition.")] = None,
    image: Annotated[Path | None, _option("FILE", "An image of Raspberry Pi OS, unpacked.")] = None,
    wifi_name: Annotated[str, _option("SSID", "Name of the Wi-Fi.")] = "",
    wifi_passphrase: Annotated[
        str, _option("TEXT", "Its passphrase; the card gets its key alone.", envvar="EDGEFLOCK_WIFI_PASSPHRASE")
    ] = "",
    country: Annotated[str, _option("CC", "Where the Wi-Fi is, such as DE.")] = "",
    user: Annotated[str, _option("NAME", "Account to log in with.")] = "",
    ssh_key: Annotated[Path | None, _option("FILE", "Public key of who may log in.")] = None,
    password_hash: Annotated[str, _option("HASH", "What openssl passwd -6 prints.")] = "",
    package: Annotated[str, _option("WHAT", "Requirement or wheel to install, instead of this release.")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="The card carries every package.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace settings of others.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Put back what the card was before.")] = False,
    fleet: Annotated[Path | None, _option("FILE", "fleet.toml with many cards, instead.")] = None,
) -> None:
    """Make a card with Raspberry Pi OS join a fleet at its first boot."""
    said: dict[str, object] = {
        "profile": profile,
        "name": name,
        "invitation": invitation,
        "wifi_name": wifi_name,
        "wifi_passphrase": wifi_passphrase,
        "country": country,
        "user": user,
        "ssh_key": _text(ssh_key) if ssh_key else "",
        "password_hash": password_hash,
        "package": package,
        "offline": offline,
        "boot": str(boot) if boot else None,
        "image": str(image) if image else None,
    }
    if undo:
        with opened(boot, image) as card:
            undo_card(card, str(boot or image))
        print(f"{boot or image}: as it was before it was flashed")
        return
    if fleet is not None and (beside := [f"--{key.replace('_', '-')}" for key, value in said.items() if value]):
        raise ConfigurationError(f"{COMMAND}: {', '.join(beside)} beside --fleet; write it into {fleet} instead")
    if fleet is None:
        lacking = [f"--{key}" for key in ("profile", "name", "invitation") if not said[key]]
        if lacking:
            raise ConfigurationError(f"{COMMAND}: {', '.join(lacking)} missing; give all three, or --fleet FILE")
    cards = read_fleet(fleet) if fleet else [card_of(said, COMMAND, Path())]
    for line in flash_cards(cards, time.time(), replace=replace):
        print(line)


def _text(path: Path) -> str:
    """Of a public key's file; of a longer one no more than shows that it is none."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_SSH_KEY_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = why_unreadable(error, "name a public key") if isinstance(error, OSError) else "no public key"
        raise ConfigurationError(f"--ssh-key {path}: {why}") from error
