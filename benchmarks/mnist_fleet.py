"""The fleet that strategies are compared on: 100 clients with unequal shares of MNIST, in virtual time.

The simulation runs the shipped cores (`workbench.simulation`). Speeds are lognormal(1.2), labels Dirichlet(0.3), ten
devices train at any time; links are fast, so virtual time is training time, one unit being the median device's round.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.mnist import read_mnist
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.core.guards import GuardSettings
from fleet_protocol import topics
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import UPDATE, Update, encode_payload
from fleet_protocol.update_plan import UpdatePlan
from workbench.data.samples import share_out
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.conditions import Conditions, FleetMember
from workbench.simulation.ledger import Point
from workbench.simulation.simulation import Options, Result, Simulation
from workbench.simulation.workload import trained_workload

RECIPE = Path(__file__).parent / "mnist_mlp"
"""Plain cross-entropy, as in the papers."""

BALANCED_RECIPE = Path(__file__).parent / "mnist_mlp_balanced"
"""The same network with a loss for devices that see few of the classes."""

CLIENTS = 100
TRAINING_AT_A_TIME = 10
SPEED_SPREAD = 1.2
TARGET_ACCURACY = 0.93
SCORE_EVERY = 10
SMOOTHED_POINTS = 5
FAST = 1e9
"""kbit/s and Mflop/s of what shall take no time."""
TUNING_SEED = 100


class Rates(msgspec.Struct, frozen=True):
    """One point of the grid that every contender is tuned on."""

    client_learning_rate: float
    server_learning_rate: float
    server_momentum: float


class Grid(msgspec.Struct, frozen=True):
    """All combinations are tried."""

    client_learning_rate: Sequence[float]
    server_learning_rate: Sequence[float]
    server_momentum: Sequence[float]

    def __iter__(self) -> Iterator[Rates]:
        for values in product(self.client_learning_rate, self.server_learning_rate, self.server_momentum):
            yield Rates(*values)


WHOLE_VERSIONS = DownlinkPlan("off")


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to learn together: how updates are packed and aggregated, and how versions travel down.

    A grid's server learning rates are multiples of the one in `aggregation`: optimisers differ in what is a usual one.
    `as_published`: without what the defaults add to a paper's method, which are a model that is the mean of versions,
    rounds of a few epochs, and samples kept for validation.
    """

    update: UpdatePlan
    aggregation: AggregationPlan
    synchronous: bool = False
    downlink: DownlinkPlan = WHOLE_VERSIONS
    as_published: bool = False


DENSE = UpdatePlan(1.0, quantisation="float32", selection="dense")


class Arena:
    """Runs contenders on fleets drawn from seeds; all of them train the bundle in `folder`."""

    def __init__(self, folder: Path, data: Path) -> None:
        digits = read_mnist(data)
        self._samples = Samples(digits.images.reshape(len(digits.labels), -1), digits.labels)
        self._folder = folder
        self._bundle = load_bundle(folder)

    @property
    def plain_update_bytes(self) -> int:
        """A signed update of this network as plain float32."""
        payload = encode_payload(Update(100, 40, 0.123, bytes(4 * self._bundle.description.parameter_count)))
        topic = topics.up("simulated", "0", "d00000")
        return len(sign_envelope(SigningKey(bytes(32)), topic, UPDATE, payload, sequence=9, task="mnist-mlp"))

    def run(self, contender: Contender, rates: Rates, seed: int, updates: int, *, stop_at_target: bool) -> Result:
        """One simulation, of at most `updates` updates."""
        options = Options(
            seed=seed,
            seconds=math.inf,
            updates=updates,
            target=TARGET_ACCURACY,
            stop_at_target=stop_at_target,
            score_every=SCORE_EVERY,
            concurrent=math.ceil(TRAINING_AT_A_TIME * contender.aggregation.over_selection),
            synchronous=contender.synchronous,
        )
        task = self._bundle.description
        workload = trained_workload(self._folder, task, *share_out(self._samples, task, CLIENTS, seed))
        return Simulation(
            unequal_fleet(seed), contenders_bundle(self._bundle, contender, rates), workload, options
        ).run()

    def tune(self, contender: Contender, grid: Grid, updates: int) -> Rates:
        """The rates that reach the target with the fewest updates; if none does, those that come closest to it.

        Whole weights travel meanwhile: packing differences takes longer than training, and rounding changes little.
        """
        contender = replace(contender, downlink=WHOLE_VERSIONS)

        def distance(rates: Rates) -> tuple[float, float]:
            result = self.run(contender, rates, TUNING_SEED, updates, stop_at_target=True)
            reached = result.summary.reached
            return (reached.updates if reached else math.inf, -smoothed(result.history, updates))

        return min(grid, key=distance)


@contextmanager
def prepared_arena(data: Path, recipe: Path = RECIPE) -> Iterator[Arena]:
    """The arena with the recipe's bundle, exported into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(recipe, Path(folder))
        yield Arena(Path(folder), data)


def smoothed(history: Sequence[Point], updates: int) -> float:
    """The mean of the last scores up to `updates`: single versions vary."""
    return float(np.mean([point.score for point in history if point.updates <= updates][-SMOOTHED_POINTS:]))


def contenders_bundle(bundle: Bundle, contender: Contender, rates: Rates) -> Bundle:
    """`bundle` with the plans of a contender, tuned to some rates."""
    task = bundle.description
    aggregation = msgspec.structs.replace(
        contender.aggregation,
        server_learning_rate=rates.server_learning_rate * contender.aggregation.server_learning_rate,
        server_momentum=rates.server_momentum,
    )
    training = msgspec.structs.replace(task.training, learning_rate=rates.client_learning_rate)
    if contender.as_published:
        aggregation = msgspec.structs.replace(aggregation, averaged_versions=1)
        training = msgspec.structs.replace(training, epochs_per_round=0, maximum_epochs=0, validation_share=0.0)
    changed = msgspec.structs.replace(
        task, update=contender.update, aggregation=aggregation, training=training, downlink=contender.downlink
    )
    return Bundle(changed, bundle.files)


def unequal_fleet(seed: int, devices: int = CLIENTS) -> list[FleetMember]:
    """Devices that differ in speed alone; the median one's round takes a unit of virtual time."""
    durations = np.random.default_rng((seed, 3)).lognormal(0.0, SPEED_SPREAD, devices)
    return [
        FleetMember(
            Conditions(
                training_mflops=FAST,
                start_seconds=duration,
                uplink_kbit_s=FAST,
                downlink_kbit_s=FAST,
                latency_ms=0.0,
                samples_per_hour=1.0,
            ),
            GuardSettings(),
        )
        for duration in durations.tolist()
    ]
