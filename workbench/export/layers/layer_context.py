"""What a layer knows of the training step that it runs in, and the error of one that can't be a part of it."""

from dataclasses import dataclass, field

from torch import Tensor


class UnexportableError(Exception):
    """A layer can't become a graph: why, and what to write instead. `place` names it where the caller can't."""

    def __init__(self, reason: str, remedy: str, place: str | None = None) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.place = place


@dataclass(slots=True)
class LayerContext:
    """What a layer may read of the step that it runs in, and what it changes.

    `row_weights` f32[B] is 0 on padding and adds up to 1 otherwise; `seed` i64[], modulo 2**32, is another one in every
    step; `row` i64[] is the row's number where each is differentiated by itself; `updated` maps buffers to their new
    values.
    """

    row_weights: Tensor | None = None
    seed: Tensor | int | None = None
    row: Tensor | None = None
    updated: dict[str, Tensor] = field(default_factory=dict)
    draws: int = 0

    def rows_of(self, what: str, instead: str) -> Tensor:
        """The weights f32[B] of the rows, for `what`, which needs all of them at once.

        Raises:
            UnexportableError: each row is differentiated by itself; `instead` says what works then.
        """
        if self.row_weights is None:
            raise UnexportableError(f"{what}, and here each sample has a gradient of its own", instead)
        return self.row_weights

    def buffer(self, layer: str, name: str, value: Tensor) -> Tensor:
        """A buffer of a layer as the step has left it so far: a layer that runs twice changes its buffers twice."""
        return self.updated.get(_joined(layer, name), value)

    def update(self, layer: str, name: str, value: Tensor) -> None:
        """Remember the new value of a layer's buffer."""
        self.updated[_joined(layer, name)] = value


def _joined(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name
