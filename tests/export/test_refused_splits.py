"""What can't be divided is refused in a sentence, and a split that follows its advice divides the model."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from torch import Tensor, nn

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_SESSION_MESSAGE_BYTES
from fleet_protocol.split_plan import SplitPlan
from tests.support.training import BATCH, build, make_recipe
from workbench.export.blocks.division import divide
from workbench.export.blocks.split_task import split_plan
from workbench.export.recipe.own_loss import OwnLoss
from workbench.export.recipe.task_file import PartSettings, SplitSettings

Run = Callable[["Layers", Tensor], Tensor]
Cuts = Mapping[str, list[tuple[str, str]]]
WIDE = MAX_SESSION_MESSAGE_BYTES // 4 // BATCH + 1
"""Values of a sample of which a mini-batch is just too large for one message, as float32."""


class Layers(nn.Module):
    """Layers by name, and what `forward` makes of them and of samples f32[N, 8]."""

    def __init__(self, run: Run, **more: nn.Module) -> None:
        super().__init__()
        self.run = run
        layers = {"first": nn.Linear(8, 6), "second": nn.Linear(6, 6), "third": nn.Linear(6, 4)}
        for name, layer in (layers | more).items():
            self.add_module(name, layer)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.run(self, inputs)


def in_a_row(layers: Layers, inputs: Tensor) -> Tensor:
    return layers.third(layers.second(layers.first(inputs)).tanh())


def recurrent(layers: Layers, inputs: Tensor) -> Tensor:
    return layers.third(layers.recurrence(layers.first(inputs).reshape(-1, 2, 3))[0][:, -1])


def tied(layers: Layers, inputs: Tensor) -> Tensor:
    return layers.third(layers.middle(layers.second(layers.first(inputs))) @ layers.second.weight)


def around(layers: Layers, inputs: Tensor) -> Tensor:
    hidden = layers.first(inputs)
    return layers.third(layers.middle(hidden + layers.second(hidden)))


def aside(layers: Layers, inputs: Tensor) -> Tensor:
    layers.spare(inputs)
    return in_a_row(layers, inputs)


def plain_first(layers: Layers, inputs: Tensor) -> Tensor:
    return in_a_row(layers, layers.plain(inputs))


def with_samples(layers: Layers, inputs: Tensor) -> Tensor:
    return layers.third(layers.second(layers.first(inputs) + layers.spare(inputs)).tanh())


def wide(layers: Layers, inputs: Tensor) -> Tensor:
    return layers.narrow(layers.wide(layers.first(inputs)).tanh())


@dataclass(frozen=True, slots=True)
class Refused:
    """A model and how it is split, what is said of that, and a split that does what is advised."""

    sentence: str
    points: tuple[str, ...]
    better: tuple[str, ...] = ("first", "second")
    run: Run = in_a_row
    layers: Mapping[str, Callable[[], nn.Module]] = field(default_factory=dict)
    cuts: Cuts = field(default_factory=dict)
    better_cuts: Cuts = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    batch_size: int = BATCH

    def split(self, points: tuple[str, ...], cuts: Cuts, batch_size: int = BATCH) -> SplitPlan:
        """The plan for these points, as an export makes it."""
        module, shape = build(lambda: Layers(self.run, **{name: make() for name, make in self.layers.items()}), (8,))
        recipe = make_recipe(module, shape)
        settings = SplitSettings(points=points, cuts=dict(cuts), activations="float32")
        parts = {part: PartSettings((f"{part}.*",)) for part in self.parts}
        losses = {part: OwnLoss(lambda outputs: outputs.square().sum(dim=1), ("outputs",)) for part in parts}
        training = msgspec.structs.replace(recipe.task.training, batch_size=batch_size)
        task = msgspec.structs.replace(recipe.task, split=settings, parts=parts, training=training)
        return split_plan(divide(replace(recipe, task=task, own_losses=losses), points))


REFUSED: Mapping[str, Refused] = {
    "no such point": Refused(
        r"the point 'fourth' is no submodule; there is 'first', 'second', 'third'", ("first", "fourth")
    ),
    "point that never runs": Refused(
        r"the point 'spare' never runs; name a submodule that forward\(\) calls",
        ("first", "spare"),
        layers={"spare": lambda: nn.Linear(2, 2)},
    ),
    "two tensors": Refused(
        r"the point 'recurrence' gives a tuple for 3 samples; name one that gives one float32 tensor",
        ("first", "recurrence"),
        ("first", "third"),
        run=recurrent,
        layers={"recurrence": lambda: nn.GRU(3, 6, batch_first=True)},
    ),
    "point named twice": Refused(r"the point 'first' stands there twice", ("first", "second", "first")),
    "points out of order": Refused(
        r"the point 'first' runs in front of 'second'; name them in the order of forward\(\)", ("second", "first")
    ),
    "tied weights": Refused(
        r"the point 'middle' stands between two uses of 'second.weight', and a parameter is in one block",
        ("first", "middle"),
        ("first", "third"),
        run=tied,
        layers={"middle": nn.Tanh},
    ),
    "skip connection": Refused(
        r"the point 'second' is not the only way: a value made with 'first\.\w+', such as of a skip connection, goes",
        ("second", "middle"),
        ("first", "middle"),
        run=around,
        layers={"middle": nn.Tanh},
    ),
    "point aside": Refused(
        r"the point 'spare' gives what nothing behind it takes; name one on the way to the loss",
        ("spare", "first"),
        run=aside,
        layers={"spare": lambda: nn.Linear(8, 2)},
    ),
    "nothing trains in front": Refused(
        r"the point 'plain' comes before any parameter that trains: a helper would see samples",
        ("plain", "second"),
        run=plain_first,
        layers={"plain": nn.Tanh},
    ),
    "two parts in a block": Refused(
        r"the block behind 'first' has 'second\.\w+' of the part second and 'third\.\w+' of third",
        ("first",),
        parts=("first", "second", "third"),
    ),
    "one point": Refused(r"split.points give 0 cuts, a task has 1 to MAX_CUTS \(256\)", ("first",)),
    "cut at no point": Refused(
        r"split.cuts.here: 'fifth' is none of split.points, first, second",
        ("first", "second"),
        cuts={"here": [("first", "fifth")]},
        better_cuts={"here": [("first", "second")]},
    ),
    "cut backwards": Refused(
        r"split.cuts.here: \[\('second', 'first'\)\] are no pairs of points from first to last",
        ("first", "second"),
        cuts={"here": [("second", "first")]},
        better_cuts={"here": [("first", "second")]},
    ),
    "helper that would see samples": Refused(
        r"split.cuts.here: the block behind 'first' up to 'second' reads samples, which no helper sees",
        ("first", "second", "third"),
        ("first", "second", "third"),
        run=with_samples,
        layers={"spare": lambda: nn.Linear(8, 6)},
        cuts={"here": [("first", "second")]},
        better_cuts={"here": [("second", "third")]},
    ),
    "large mini-batch": Refused(
        r"training.batch_size is 4097, and a helper takes at most MAX_ROWS_PER_STEP \(4096\) samples at once",
        ("first", "second"),
        batch_size=4097,
    ),
    "large message": Refused(
        r"split.cuts: 1-2: 8 samples at 'wide' are 4.0 MiB, more than MAX_SESSION_MESSAGE_BYTES \(4 MiB\)",
        ("first", "wide"),
        ("first", "narrow"),
        run=wide,
        layers={"wide": lambda: nn.Linear(6, WIDE), "narrow": lambda: nn.Linear(WIDE, 4)},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_split_that_can_not_be_is_told_why_and_another_one_divides(name: str):
    refused = REFUSED[name]
    with pytest.raises(ConfigurationError) as raised:
        refused.split(refused.points, refused.cuts, refused.batch_size)
    said = str(raised.value)
    assert re.search(refused.sentence, said), said
    assert "\n" not in said
    plan = refused.split(refused.better, refused.better_cuts)
    assert [block.point for block in plan.blocks] == [*refused.better, ""]
