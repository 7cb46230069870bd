"""What a mask helper must never forget: which set it has spoken for, of each cohort and of each update. Pure.

A set is claimed before the first word about it leaves the helper. Whatever is killed then, and whenever: the same set
may be asked about again and gets the same bytes, and no other set that shares a cohort or an update with it ever does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

UpdateName: TypeAlias = tuple[bytes, int]
"""A device's Ed25519 key and the sequence number. Not its name: a card with a new key counts from the start again."""


@dataclass(frozen=True, slots=True)
class EarlierClaim:
    """What stands in the way: the set with this hash has the update already, or the cohort where that is None."""

    update: UpdateName | None
    set_hash: bytes


class Claims(Protocol):
    """The helper's durable memory, for its whole life."""

    def claim(self, cohort: bytes, set_hash: bytes, updates: Iterable[UpdateName]) -> EarlierClaim | None:
        """Give a cohort and all these updates to one set, all or none, in one transaction.

        Returns once that is on the disk; None also where this set has them already. Returns what stands in the way,
        and changes nothing, where one of them is another set's.
        """
        ...


class ClaimsInMemory:
    """Claims for simulations and measurements: they end with the process, so a real helper must not use them."""

    def __init__(self) -> None:
        self._of_cohorts: dict[bytes, bytes] = {}
        self._of_updates: dict[UpdateName, bytes] = {}

    def claim(self, cohort: bytes, set_hash: bytes, updates: Iterable[UpdateName]) -> EarlierClaim | None:
        """See `Claims`."""
        named = tuple(updates)
        if (earlier := self._of_cohorts.get(cohort, set_hash)) != set_hash:
            return EarlierClaim(None, earlier)
        for update in named:
            if (earlier := self._of_updates.get(update, set_hash)) != set_hash:
                return EarlierClaim(update, earlier)
        self._of_cohorts[cohort] = set_hash
        self._of_updates.update(dict.fromkeys(named, set_hash))
        return None
