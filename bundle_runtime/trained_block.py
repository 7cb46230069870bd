"""One block of a divided model while it is trained, on a device or at a helper."""

from dataclasses import dataclass, replace

from bundle_runtime.blocks import Backward, BlockRunner, Floats, Last, Rates, State
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sessions.staleness import staleness_weight


@dataclass(frozen=True, slots=True)
class _Slowed:
    """The rates of a stale pass."""

    learning_rate: float
    weight_decay: float
    proximal: float


@dataclass(frozen=True, slots=True)
class Then:
    """A block as a forward pass met it: `weights` f32[Pk], and how many `updates` it had had. Until the backward pass
    it counts as having at least `company` more: those of the steps that are under way beside this one.
    """

    weights: FloatVector
    updates: int
    company: int = 0


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
        then: "Then",
        passes: int = 1,
        raw: Floats | None = None,
        update: bool = True,
    ) -> Backward:
        """What a backward pass would make of it, and the gradient by `inputs`: nothing changes before `accept`.

        The gradient is that of the weights of the forward pass, `then`, which it belongs to (weight stashing: Narayanan
        et al. 2019, "PipeDream", section 3.3), and moves the weights as they are now. Without `update` nothing is
        trained, and buffers move all the same. The rows may be those of several `passes`.
        """
        result = runner.backward(
            self.number,
            then.weights,
            self.state,
            inputs,
            gradient,
            seed=seed,
            rates=self.slowed(rates, then, passes),
            raw=raw,
            anchor=self.start,
            update=update,
        )
        if then.weights is self.weights:
            return result
        return replace(result, weights=self.weights + (result.weights - then.weights))

    def weight_of(self, then: "Then", passes: int = 1) -> float:
        """The share of the learning rate that backward passes have which began `then`."""
        return staleness_weight(self.updates - then.updates, passes, then.company)

    def slowed(self, rates: Rates, then: "Then", passes: int = 1) -> Rates:
        """The rates of such passes."""
        return _Slowed(self.weight_of(then, passes) * rates.learning_rate, rates.weight_decay, rates.proximal)

    def now(self, company: int = 0) -> "Then":
        """For the backward pass of what goes forward now."""
        return Then(self.weights, self.updates, company)

    def accept(self, trained: Backward | Last, updates: int = 1) -> None:
        """Take what a pass made of it, or several; it counts for so many `updates`."""
        self.weights, self.state = trained.weights, trained.state
        self.updates += updates
