"""The audit finds what it is for: each case is a story of one update that went wrong."""

import pytest

from broker_coordinator.storage.records import JournalledPayload
from fleet_protocol.kinds import UPDATE
from workbench.demo.audit import Audit, DeviceLedger, audit

GOOD, OTHER = b"good", b"other"


def row(digest: bytes, sequence: int = 1, device: str = "pi") -> JournalledPayload:
    return JournalledPayload(sequence, device, sequence, digest, UPDATE.number, "digits", 0, 0, "{}", b"", None)


def ledger(
    *,
    accepted: tuple[bytes, ...] = (),
    rejected: tuple[bytes, ...] = (),
    waiting: tuple[bytes, ...] = (),
    made: int = 1,
) -> DeviceLedger:
    return DeviceLedger(made, *(dict(enumerate(digests)) for digests in (accepted, rejected, waiting)))


@pytest.mark.parametrize(
    ("device", "journal", "found"),
    [
        (ledger(accepted=(GOOD,)), [row(GOOD)], Audit(0, 0, 0, 0, 0)),
        (ledger(waiting=(GOOD,)), [row(GOOD)], Audit(0, 0, 1, 0, 0)),
        (ledger(waiting=(GOOD,)), [], Audit(0, 0, 1, 0, 1)),
        (ledger(rejected=(GOOD,)), [], Audit(0, 0, 0, 1, 0)),
        (ledger(accepted=(GOOD,)), [], Audit(1, 0, 0, 0, 0)),
        (ledger(accepted=(GOOD,)), [row(GOOD, device="another")], Audit(1, 0, 0, 0, 0)),
        (ledger(), [], Audit(1, 0, 0, 0, 0)),
        (ledger(accepted=(GOOD,)), [row(GOOD), row(GOOD, 2)], Audit(0, 1, 0, 0, 0)),
        (ledger(rejected=(GOOD,)), [row(GOOD)], Audit(0, 1, 0, 1, 0)),
        (ledger(accepted=(GOOD,)), [row(OTHER), row(GOOD, 2)], Audit(0, 1, 0, 0, 0)),
    ],
    ids=[
        "delivered",
        "receipt on its way",
        "not sent yet",
        "refused",
        "receipted and not journalled",
        "journalled for another",
        "forgotten by its device",
        "journalled twice",
        "taken back and journalled",
        "sent again under another number and journalled under both",
    ],
)
def test_what_became_of_an_update(device, journal, found) -> None:
    assert audit({"pi": device}, journal) == found
