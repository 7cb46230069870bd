"""What follows where this database is an older one than the broker's accounts, or than what devices know.

Who was revoked since the backup must not come back unseen, and who has joined since then must not be lost unseen: the
broker's accounts tell of both. Anything else is the operator's word (docs/decisions/restored-coordinator.md).
"""

import logging
from collections.abc import Mapping, Sequence, Set

from sqlalchemy import Engine

from broker_coordinator.storage.broker_account_rows import Holder, sort_strays
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.device_registry import hold_back, revoke_key
from broker_coordinator.storage.restores import Noticed, last_restore, note_compared, note_restore
from fleet_host.log_lines import log_line

MAX_HELD_BACK = 100
"""Where more accounts are missing at once, the broker has lost them: nobody revokes so many devices."""
MAX_NAMED = 10
"""In one log line."""

logger = logging.getLogger(__name__)


def note_older_database(engine: Engine, noticed: Noticed) -> None:
    """Note what a running coordinator has noticed.

    Raises:
        JournalUnavailableError: call again.
    """
    with writing(engine) as connection:
        names = note_restore(connection, noticed)
    if names:
        logger.warning(
            log_line(
                "invitations_withdrawn",
                devices=_some(names),
                reason="the database was restored or made anew: they may be used up already",
                remedy="whoever has not joined yet: broker-coordinator devices invite NAME",
            )
        )


def compare_accounts(engine: Engine, existing: Set[str], wanted: Mapping[str, Holder]) -> None:
    """Look at the accounts that the broker has, when it has just told, beside those that it should have.

    Raises:
        JournalUnavailableError: call again.
    """
    strays = sort_strays(engine, existing - wanted.keys())
    last = last_restore(engine)
    if strays.unknown:
        _say_unknown(strays.unknown)
        if last is None:
            note_older_database(engine, Noticed.ACCOUNTS)
            last = last_restore(engine)
    if last is not None and not last.compared:
        missing = {
            name: holder
            for name, holder in wanted.items()
            if holder.takes_part and holder.coordinator_key is not None and name not in existing
        }
        _settle(engine, missing, existing, strays.unknown)


def _settle(engine: Engine, missing: Mapping[str, Holder], existing: Set[str], unknown: Set[str]) -> None:
    """Decide once about approved devices whose account the broker has no more."""
    lost_by_broker = len(missing) > MAX_HELD_BACK or not existing
    replaced = {account.rpartition(".")[0] for account in unknown}
    with writing(engine) as connection:
        for holder in () if lost_by_broker else missing.values():
            if holder.device in replaced:
                revoke_key(connection, holder.public_key)
            else:
                hold_back(connection, holder.public_key)
        note_compared(connection)
    if not missing:
        return
    names = _some([holder.device for holder in missing.values()])
    if lost_by_broker:
        logger.warning(
            log_line(
                "revocations_unknown",
                devices=names,
                count=len(missing),
                remedy="the broker has lost its accounts too: whoever was revoked after the backup takes part again;"
                " look through `devices list`, and revoke them again",
            )
        )
    else:
        logger.warning(
            log_line(
                "devices_held_back",
                devices=names,
                count=len(missing),
                remedy="approved in the restored database, and without an account at the broker: revoked since the"
                " backup? if not, broker-coordinator devices approve NAME KEY_ID",
            )
        )


def _say_unknown(accounts: Set[str]) -> None:
    logger.warning(
        log_line(
            "accounts_not_in_database",
            accounts=_some(sorted(accounts)),
            count=len(accounts),
            remedy="they were made after what this database knows, and stay: approve the devices that enrol with them"
            " (`devices list`); invitations among them are refused: make new ones",
        )
    )


def _some(names: Sequence[str]) -> str:
    left = len(names) - MAX_NAMED
    return " ".join(names[:MAX_NAMED]) + (f" and {left} more" if left > 0 else "")
