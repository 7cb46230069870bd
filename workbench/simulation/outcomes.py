"""What became of devices' payloads, so that one that comes again is answered and not taken twice: 24 bytes each."""

from collections.abc import Iterator, MutableMapping
from typing import Final

from broker_coordinator.admission.fleet_view import Decided
from fleet_protocol.limits import DIGEST_BYTES

OUTCOMES_KEPT: Final = 64
"""Of each device: more than its outbox may contain, so that every repetition is recognised."""
_NUMBER_BYTES: Final = 8
_ROW_BYTES: Final = _NUMBER_BYTES + DIGEST_BYTES


class Outcomes(MutableMapping[tuple[str, int], Decided]):
    """The last outcomes of each device, by its name and the sequence number. Refusals, which are few, are kept with
    their words.
    """

    def __init__(self) -> None:
        self._accepted: dict[str, bytes] = {}
        """Sequence numbers and digests, one after the other, oldest first."""
        self._refused: dict[str, dict[int, Decided]] = {}

    def __getitem__(self, key: tuple[str, int]) -> Decided:
        device, sequence = key
        if (refused := self._refused.get(device, {}).get(sequence)) is not None:
            return refused
        rows, number = self._accepted.get(device, b""), sequence.to_bytes(_NUMBER_BYTES)
        for at in range(0, len(rows), _ROW_BYTES):
            if rows.startswith(number, at):
                return Decided(rows[at + _NUMBER_BYTES : at + _ROW_BYTES])
        raise KeyError(key)

    def __setitem__(self, key: tuple[str, int], outcome: Decided) -> None:
        device, sequence = key
        if outcome.reason is None:
            row = sequence.to_bytes(_NUMBER_BYTES) + outcome.digest
            rows = self._accepted.get(device, b"") + row
            self._accepted[device] = rows[-OUTCOMES_KEPT * _ROW_BYTES :]
        else:
            refused = self._refused.setdefault(device, {})
            refused[sequence] = outcome
            if len(refused) > OUTCOMES_KEPT:
                del refused[next(iter(refused))]

    def __delitem__(self, key: tuple[str, int]) -> None:
        raise TypeError(f"the outcome of {key!r} can't be deleted: the oldest go by themselves")

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for device, rows in self._accepted.items():
            for at in range(0, len(rows), _ROW_BYTES):
                yield device, int.from_bytes(rows[at : at + _NUMBER_BYTES])
        for device, refused in self._refused.items():
            yield from ((device, sequence) for sequence in refused)

    def __len__(self) -> int:
        refused = sum(map(len, self._refused.values()))
        return sum(len(rows) for rows in self._accepted.values()) // _ROW_BYTES + refused
