"""`fleet.toml`: many cards at once, each an order and where it goes."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from fleet_protocol.configuration import convert_document, parse_document
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.limits import MIB
from workbench.flashing.order import Order

PLACES = ("boot", "image")
MAX_FILE_BYTES = 4 * MIB
"""Of a fleet file: thousands of cards."""


@dataclass(frozen=True, slots=True)
class Card:
    """An order, and the folder or the image that it is for."""

    order: Order
    boot: Path | None
    image: Path | None


class FleetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all cards have in common, and each of them: keys of `Order`, and `boot` or `image`."""

    cards: list[dict[str, object]]
    defaults: dict[str, object] = {}


def read_fleet(path: Path) -> list[Card]:
    """The cards of a file; paths start at its folder.

    Raises:
        ConfigurationError: naming the card and what is wrong with it; two have one name or one place.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, 'write one: docs/flash.md')}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path}: over {MAX_FILE_BYTES} bytes, the limit; name a fleet.toml, not an image")
    fleet = parse_document(content, FleetFile, str(path))
    cards = [
        card_of({**fleet.defaults, **each}, f"{path}: card {number}", path.parent)
        for number, each in enumerate(fleet.cards, 1)
    ]
    if not cards:
        raise ConfigurationError(f"{path}: no [[cards]]; write one for each device")
    for what, seen in (
        ("name", [card.order.name for card in cards]),
        ("place", [str((card.boot or card.image or path).resolve()) for card in cards]),
    ):
        if twice := next((each for each in seen if seen.count(each) > 1), None):
            raise ConfigurationError(f"{path}: two cards have one {what} {twice}; every device has its own")
    return cards


def card_of(document: dict[str, object], where: str, folder: Path) -> Card:
    """A card of what was said about it.

    Raises:
        ConfigurationError: naming `where`, the key, and what is wrong with it.
    """
    places: dict[str, Path | None] = {}
    for place in PLACES:
        named = document.get(place)
        if named is not None and not isinstance(named, str):
            raise ConfigurationError(f"{where}: {place} = {named!r} is no path; write it as text")
        places[place] = folder / named if named else None
    rest = {key: value for key, value in document.items() if key not in PLACES}
    package = rest.get("package")
    if isinstance(package, str) and package.endswith(".whl"):
        rest["package"] = str(folder / package)
    return Card(convert_document(rest, Order, where), places["boot"], places["image"])
