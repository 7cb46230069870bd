"""Flashes cards: all are looked at before the first is written, and one that fails stops no other."""

import time
from collections.abc import Iterator, Sequence
from functools import partial

from fleet_host.wall_clock import SHOWN
from fleet_protocol.device_invitation import read_invitation
from fleet_protocol.errors import ConfigurationError
from workbench.flashing.boot_partition import opened
from workbench.flashing.flash import check_profile, flash
from workbench.flashing.fleet_file import Card
from workbench.flashing.order import Order
from workbench.flashing.packages import carried, with_package


def flash_cards(cards: Sequence[Card], now: float, *, replace: bool) -> Iterator[str]:
    """Says of each card, once it is written, what it has become. `now` is in seconds since 1970.

    Raises:
        ConfigurationError: at once where a card can't be one; at the end where some could not be written.
    """
    for card in cards:
        check_profile(card.order.profile)
        _require_unexpired(card.order, now)
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
            yield f"{where}: {system}; joins as {order.name} at its first boot, if that comes before {_expiry(order)}"
        except ConfigurationError as error:
            failed.append(str(error))
    if failed:
        raise ConfigurationError("; and ".join(failed))


def _require_unexpired(order: Order, now: float) -> None:
    if now > read_invitation(order.invitation).expires:
        raise ConfigurationError(
            f"the invitation for {order.name} counted until {_expiry(order)}; have a new one made:"
            f" broker-coordinator devices invite {order.name}"
        )


def _expiry(order: Order) -> str:
    return time.strftime(SHOWN, time.localtime(read_invitation(order.invitation).expires))
