"""One block of a divided model while it is trained, on a device or at a helper."""

from dataclasses import dataclass

from bundle_runtime.blocks import Backward, BlockRunner, Floats, Last, Rates, State
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sessions.staleness import staleness_weight


@dataclass(frozen=True, slots=True)
class _Slowed:
    """The rates of a stale pass."""

    learning_rate: float
    weight_decay: float
    proximal: float


@dataclass(slots=True)
class TrainedBlock:
    """Block `number`: `weights` f32[Pk], its optimiser's `state`, and how many `updates` it has had. The proximal term
    pulls to `start` f32[Pk].
    """

    number: int
    start: FloatVector
    weights: FloatVector
    state: State
    updates: int = 0

    @classmethod
    def of(cls, runner: BlockRunner, number: int, flat: FloatVector) -> "TrainedBlock":
        """As it stands in all weights f32[P]; others than its own may be anything."""
        weights = runner.weights_of(number, flat)
        return cls(number, weights, weights, runner.new_state(number))

    def forward(self, runner: BlockRunner, inputs: Floats, seed: int, raw: Floats | None = None) -> Floats:
        """What it makes of `inputs` f32[N, ...]."""
        return runner.forward(self.number, self.weights, inputs, seed=seed, raw=raw)

    def backward(
        self,
        runner: BlockRunner,
        inputs: Floats,
        gradient: Floats,
        *,
        seed: int,
        rates: Rates,
        staleness: float,
        raw: Floats | None = None,
        update: bool = True,
    ) -> Backward:
        """What a backward pass would make of it, and the gradient by `inputs`: nothing changes before `accept`.

        The block has had `staleness` updates since the forward pass; in the mean, where rows of several are passed.
        Without `update` nothing is trained, and buffers move all the same.
        """
        slowed = _Slowed(rates.learning_rate * staleness_weight(staleness), rates.weight_decay, rates.proximal)
        return runner.backward(
            self.number,
            self.weights,
            self.state,
            inputs,
            gradient,
            seed=seed,
            rates=slowed,
            raw=raw,
            anchor=self.start,
            update=update,
        )

    def accept(self, trained: Backward | Last, *, update: bool = True) -> None:
        """Take what a pass made of it, which counts where it trained."""
        self.weights, self.state = trained.weights, trained.state
        self.updates += update
