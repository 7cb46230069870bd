"""Flashes cards: all are looked at before the first is written, and one that fails stops no other."""

from collections.abc import Iterator, Sequence
from functools import partial

from fleet_protocol.errors import ConfigurationError
from workbench.flashing.boot_partition import opened
from workbench.flashing.flash import check_profile, flash
from workbench.flashing.fleet_file import Card
from workbench.flashing.packages import carried, with_package


def flash_cards(cards: Sequence[Card], *, replace: bool) -> Iterator[str]:
    """Says of each card, once it is written, what it has become.

    Raises:
        ConfigurationError: at once where a card can't be one; at the end where some could not be written.
    """
    for card in cards:
        check_profile(card.order.profile)
        with_package(card.order)
        with opened(card.boot, card.image):
            pass
    failed = []
    for card in cards:
        try:
            with opened(card.boot, card.image) as partition:
                where = str(card.boot or card.image)
                order = with_package(card.order)
                system = flash(partition, where, order, partial(carried, card.order.package), replace=replace)
            yield f"{where}: {system}; joins as {order.name} at its first boot"
        except ConfigurationError as error:
            failed.append(str(error))
    if failed:
        raise ConfigurationError("; and ".join(failed))
