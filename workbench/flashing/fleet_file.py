"""The cards of `fleet.toml`: many at once, each an order and where it goes."""

from dataclasses import dataclass
from pathlib import Path

from fleet_protocol.configuration import convert_document
from fleet_protocol.errors import ConfigurationError
from workbench.flashing.order import Order
from workbench.fleet_description import read_description

PLACES = ("boot", "image")


@dataclass(frozen=True, slots=True)
class Card:
    """An order, and the folder or the image that it is for."""

    order: Order
    boot: Path | None
    image: Path | None


def read_fleet(path: Path) -> list[Card]:
    """The cards of a file; paths start at its folder.

    Raises:
        ConfigurationError: naming the card and what is wrong with it; two have one name or one place.
    """
    fleet = read_description(path, "docs/flash.md")
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
    if isinstance(package, str) and package.endswith((".whl", ".deb")):
        rest["package"] = str(folder / package)
    return Card(convert_document(rest, Order, where), places["boot"], places["image"])
