"""What task.toml or a loss in model.py says wrongly is refused in a sentence, and a recipe that follows it is read."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import AS_BUNDLED, GossipPlan
from fleet_protocol.limits import MAX_STATISTICS_COLUMNS
from tests.support.recipes import ONE_INPUT, write_recipe
from workbench.export.recipe.recipe import Recipe, read_recipe

NETWORK = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear({inputs}, 6), nn.Tanh(), nn.Linear(6, {outputs}))
"""
PAIR = """
import torch
from torch import nn

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, near, far):
        return {returned}

def build():
    return Pair()
"""
BOTH = "self.layer(torch.cat([near, far], 1))"
CLASSES = "[label]\nclasses = 3\n"
REGRESSION = '[label]\nkind = "regression"\nvalues = 3\n'
NO_LABEL = '[label]\nkind = "none"\n'
OWN = 'loss = "model.py"'
LOSS = "\ndef loss({arguments}):\n    return {value}\n"
NEAR_AND_FAR = "".join(
    f"[inputs.{name}]\nshape = [{size}]\nminimum = -1.0\nmaximum = 1.0\n" for name, size in (("near", 2), ("far", 3))
)
TWO_HEADS = "[heads.one]\nlabel = { classes = 3 }\n[heads.other]\nlabel = { classes = 3 }\n"
READINGS = """
[readings.fields.warmth]
range = [0.0, 40.0]
[readings.fields.busy]
kind = "boolean"
[readings.label]
field = "busy"
"""
PARTS = '[parts.front]\nparameters = ["0.*"]\n[parts.back]\nparameters = [{back}]\n'
PART_LOSSES = "".join(f"\ndef loss_{part}(outputs):\n    return outputs[:, 0]\n" for part in ("front", "back"))
ALONE = "validation_share = 0.0\n"
WIDE = ONE_INPUT.replace("1.0", "5000.0")
WHOLE = "[input]\nshape = [8]\nminimum = 0.0\nmaximum = 1.0\nwhole = true\n"
RANGES = '[scaling]\ninputs = "ranges"\ninput_ranges = [{}]\n'
MANY = MAX_STATISTICS_COLUMNS + 1
MANY_INPUTS = f"[input]\nshape = [{MANY}]\nminimum = 0.0\nmaximum = 1.0\n"
FLEET = '[scaling]\ninputs = "fleet"\n'
BACKBONE = 'trainable = ["2.*"]\nbackbone.module = "0"\n'


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a recipe: model.py, and task.toml's first keys, its inputs and its other tables."""

    model: str = NETWORK.format(inputs=8, outputs=3)
    tables: str = CLASSES
    first: str = ""
    inputs: str = ONE_INPUT
    training: str = ""

    def read(self, folder: Path) -> Recipe:
        write_recipe(folder, self.model, self.tables, first=self.first, inputs=self.inputs)
        task = folder / "task.toml"
        task.write_text(task.read_text().replace("[update]", f"{self.training}[update]"))
        return read_recipe(folder)


@dataclass(frozen=True, slots=True)
class Refused:
    """A recipe, what is said of it, and one that does what it is advised."""

    wrong: Written
    sentence: str
    right: Written


def with_loss(arguments: str, value: str, **rest: str) -> Written:
    return replace(Written(NETWORK.format(inputs=8, outputs=3) + LOSS.format(arguments=arguments, value=value)), **rest)


PLAIN = Written()
SQUARED = "((outputs - labels) ** 2).mean(dim=1)"
OWN_REGRESSION = {"tables": REGRESSION, "first": OWN}
IN_TURN = Written(
    NETWORK.format(inputs=8, outputs=3) + PART_LOSSES,
    NO_LABEL + PARTS.format(back='"2.*"'),
    training=ALONE,
)
PAIRED = Written(PAIR.format(returned=BOTH), inputs=NEAR_AND_FAR)
HEADED = Written(PAIR.format(returned=f'{{"one": {BOTH}, "other": {BOTH}}}'), TWO_HEADS, inputs=NEAR_AND_FAR)
READ = Written(NETWORK.format(inputs=1, outputs=2), "[label]\nclasses = 2\n", inputs=READINGS)
POSTERIOR = "[posterior]\n"
SPLIT = '[split]\npoints = ["0", "1"]\n'
TARGET_RANGES = "targets = {}\ntarget_ranges = [[0, 1], [0, 1], [0, 1]]\n"

REFUSED = {
    "loss without a function": Refused(
        replace(PLAIN, **OWN_REGRESSION),
        r"no function loss\(\), .*; write one, such as def loss\(outputs, labels\), that gives one number per row",
        with_loss("outputs, labels", SQUARED, **OWN_REGRESSION),
    ),
    "loss of a part without a function": Refused(
        replace(IN_TURN, model=NETWORK.format(inputs=8, outputs=3)),
        r"no function loss_front\(\), which task\.toml asks for with \[parts\.NAME\]; write one",
        IN_TURN,
    ),
    "loss that asks for more": Refused(
        with_loss("outputs, target", "outputs[:, 0]", **OWN_REGRESSION),
        r"loss\(\) asks for 'target', which is not known here; let it ask for what is: 'outputs' is what forward",
        with_loss("outputs, labels", SQUARED, **OWN_REGRESSION),
    ),
    "loss that asks for labels": Refused(
        with_loss("outputs, labels", SQUARED, tables=NO_LABEL),
        r"loss\(\) asks for 'labels', but label\.kind says that there are none; leave it out",
        with_loss("outputs", "(outputs**2).mean(dim=1)", tables=NO_LABEL),
    ),
    "loss of all rows": Refused(
        with_loss("outputs", "outputs.mean()", tables=NO_LABEL),
        r"must give one float32 number per row, \[2\] for 2 rows; it gives torch\.float32 \[\]: take means over every",
        with_loss("outputs", "outputs.mean(dim=1)", tables=NO_LABEL),
    ),
    "loss that fails": Refused(
        with_loss("outputs, labels", "outputs @ labels", **OWN_REGRESSION),
        r"loss\(\) failed in line 9 of model\.py: RuntimeError: .*; it is given outputs \[2, 3\], labels \[2, 3\]",
        with_loss("outputs, labels", SQUARED, **OWN_REGRESSION),
    ),
    "two losses": Refused(
        with_loss("outputs, labels", SQUARED, tables=REGRESSION + "[loss_settings]\nhuber_delta = 2.0\n", first=OWN),
        r"the loss is the one in model\.py; leave other losses, loss_settings and weight out",
        with_loss("outputs, labels", SQUARED, **OWN_REGRESSION),
    ),
    "loss beside heads": Refused(
        replace(HEADED, first='loss = "cross_entropy"'),
        r"loss and \[loss_settings\] are those of one head; write them in \[heads\.NAME\]",
        replace(HEADED, tables=TWO_HEADS.replace("}\n", '}\nloss = "cross_entropy"\n')),
    ),
    "loss for other labels": Refused(
        replace(PLAIN, first='loss = "huber"'),
        r"loss 'huber' is for label\.kind regression or reconstruction, this is 'class'; write loss ="
        " 'cross_entropy' or 'balanced_cross_entropy'",
        replace(PLAIN, first='loss = "balanced_cross_entropy"'),
    ),
    "loss of a head for other labels": Refused(
        replace(HEADED, tables=TWO_HEADS.replace("}\n", '}\nloss = "huber"\n', 1)),
        r"heads\.one: loss 'huber' is for label\.kind regression or reconstruction, this is 'class'; write loss =",
        replace(HEADED, tables=TWO_HEADS.replace("}\n", '}\nloss = "cross_entropy"\n', 1)),
    ),
    "setting of another loss": Refused(
        replace(PLAIN, tables=CLASSES + "[loss_settings]\nhuber_delta = 2.0\n"),
        r"loss_settings\.huber_delta is 2\.0, but loss 'balanced_cross_entropy' does not use it; leave it out, or set",
        replace(PLAIN, tables=CLASSES + "[loss_settings]\nhuber_delta = 1.0\nlabel_smoothing = 0.1\n"),
    ),
    "weights of other classes": Refused(
        replace(PLAIN, tables=CLASSES + "[loss_settings]\nclass_weights = [1.0, 2.0]\n"),
        "class_weights has 2 entries; give one for each of 3 classes",
        replace(PLAIN, tables=CLASSES + "[loss_settings]\nclass_weights = [1.0, 2.0, 1.0]\n"),
    ),
    "inputs beside readings": Refused(
        replace(READ, inputs=READINGS + ONE_INPUT),
        r"\[readings\] says what the inputs are; leave \[input\] and \[inputs\.NAME\] out",
        READ,
    ),
    "heads beside readings": Refused(
        replace(READ, tables=TWO_HEADS), r"\[readings\] finds the label of one head; describe it in \[label\]", READ
    ),
    "parameter in no part": Refused(
        replace(IN_TURN, tables=NO_LABEL + PARTS.format(back='"2.weight"')),
        r"the parameter '2\.bias' is in none of the parts front, back; let the patterns of one of them fit it",
        IN_TURN,
    ),
    "parameter in two parts": Refused(
        replace(IN_TURN, tables=NO_LABEL + PARTS.format(back='"*"')),
        "the parameter '0.weight' is in front and back of the parts front, back; let the patterns of one of them",
        IN_TURN,
    ),
    "validation of parts": Refused(
        replace(IN_TURN, training="validation_share = 0.2\n"),
        r"parts that learn against each other have no common loss that falls; write validation_share = 0 and a",
        IN_TURN,
    ),
    "correction of parts": Refused(
        replace(IN_TURN, training=ALONE + 'correction = "scaffold"\n'),
        r"parts that train in turn have rates of their own, .*; leave correction out of \[training\]",
        IN_TURN,
    ),
    "single gradients of parts": Refused(
        replace(IN_TURN, training=ALONE + "per_sample_gradients = true\ngradient_clip = 1.0\n"),
        r"write validation_share = 0 and a learning_rate in \[training\], and no per_sample_gradients",
        IN_TURN,
    ),
    "input and inputs": Refused(
        replace(PAIRED, inputs=ONE_INPUT + NEAR_AND_FAR),
        r"both \[input\] and \[inputs\.NAME\]; describe one input in \[input\], or each of several in a table \[inputs",
        PAIRED,
    ),
    "neither label nor heads": Refused(
        replace(PLAIN, tables=""), r"neither \[label\] nor \[heads\.NAME\]; describe one label in \[label\]", PLAIN
    ),
    "mean of names": Refused(
        replace(PLAIN, inputs=WHOLE + 'missing = "mean"\n'),
        "input is whole numbers, which have no mean; leave missing = 'mean' out",
        replace(PLAIN, inputs=WHOLE),
    ),
    "several inputs given back": Refused(
        replace(PAIRED, tables='[label]\nkind = "reconstruction"\n'),
        r"gives back one input, this task has 2; write kind = 'none', and a loss in model\.py that compares them",
        replace(
            PAIRED,
            model=PAIR.format(returned=BOTH)
            + LOSS.format(arguments="outputs, inputs", value='((outputs - inputs["far"]) ** 2).mean(dim=1)'),
            tables=NO_LABEL,
        ),
    ),
    "scores of another shape": Refused(
        replace(PLAIN, tables="[label]\nclasses = 4\n"),
        r"label\.classes is 4, so the module must turn \(2, 8\) into \(2, 4\); it gives \(2, 3\)",
        replace(PLAIN, model=NETWORK.format(inputs=8, outputs=4), tables="[label]\nclasses = 4\n"),
    ),
    "scores of a head in another shape": Refused(
        replace(HEADED, tables=TWO_HEADS.replace("classes = 3", "classes = 4", 1)),
        r"heads\.one\.label\.classes is 4, so the module must turn \(2, 5\) into \(2, 4\); it gives \(2, 3\)",
        HEADED,
    ),
    "more than scores": Refused(
        replace(PAIRED, model=PAIR.format(returned=f"({BOTH}, near)")),
        r"gives a tuple of 2, and no loss in model\.py reads more than 1; let it return the scores",
        PAIRED,
    ),
    "scores of one head": Refused(
        replace(HEADED, model=PAIR.format(returned=f'{{"one": {BOTH}}}')),
        r"gives a dict of 'one', without a tensor 'other'; let it return a dict with the scores of each head",
        HEADED,
    ),
    "input that forward() lacks": Refused(
        replace(PAIRED, inputs=NEAR_AND_FAR.replace("inputs.far", "inputs.wide")),
        r"forward\(\) takes near, far, task\.toml has the inputs near, wide; give each parameter of forward",
        PAIRED,
    ),
    "pattern of nothing": Refused(
        replace(PLAIN, first='trainable = ["3.*"]'),
        r"the pattern '3\.\*' fits no parameter; the nearest are '2\.(bias|weight)'",
        replace(PLAIN, first='trainable = ["2.*"]'),
    ),
    "pattern of a backbone": Refused(
        replace(PLAIN, first='trainable = ["0.*"]\nbackbone.module = "0"\n'),
        r"the pattern '0\.\*' fits no parameter outside of the backbone '0'; the nearest are '2\.(bias|weight)'",
        replace(PLAIN, first=BACKBONE),
    ),
    "nothing trains": Refused(
        replace(PLAIN, first="trainable = []"),
        r"trainable = \[\] leaves no parameter to train; the nearest are '",
        replace(PLAIN, first='trainable = ["2.bias"]'),
    ),
    "scale of many columns": Refused(
        Written(NETWORK.format(inputs=MANY, outputs=3), CLASSES + FLEET, inputs=MANY_INPUTS),
        rf"scaling\.inputs = 'fleet' for {MANY} columns; the limit is {MAX_STATISTICS_COLUMNS}: write 'ranges' or",
        Written(NETWORK.format(inputs=MANY, outputs=3), CLASSES + FLEET.replace("fleet", "ranges"), inputs=MANY_INPUTS),
    ),
    "too few ranges": Refused(
        replace(PLAIN, tables=CLASSES + RANGES.format("[0, 1]"), inputs=WIDE),
        r"scaling\.inputs = 'ranges' needs 8 pairs of lowest and highest; 1 given",
        replace(PLAIN, tables=CLASSES + RANGES.format(", ".join(["[0, 1]"] * 8)), inputs=WIDE),
    ),
    "range of nothing": Refused(
        replace(PLAIN, tables=CLASSES + RANGES.format(", ".join(["[2, 2]"] * 8)), inputs=WIDE),
        r"scaling\.inputs: the range 2 to 2 is no range; give lowest and highest",
        replace(PLAIN, tables=CLASSES + RANGES.format(", ".join(["[1, 2]"] * 8)), inputs=WIDE),
    ),
    "scaled inputs of a backbone": Refused(
        replace(PLAIN, first=BACKBONE, tables=CLASSES + FLEET),
        r"scaling\.inputs = 'fleet', but a backbone takes inputs as it was trained on them; leave it out",
        replace(PLAIN, first=BACKBONE),
    ),
    "scale of names": Refused(
        replace(PLAIN, tables=CLASSES + FLEET, inputs=WHOLE),
        r"scaling\.inputs = 'fleet', but whole numbers name something and have no scale; leave it out",
        replace(PLAIN, inputs=WHOLE),
    ),
    "scale of classes": Refused(
        replace(PLAIN, tables=CLASSES + '[scaling]\ntargets = "fleet"\n'),
        r"scaling\.targets = 'fleet' is for label\.kind 'regression', this is 'class'; leave it out",
        PLAIN,
    ),
    "ranges that nothing uses": Refused(
        replace(PLAIN, tables=f"{REGRESSION}[scaling]\n" + TARGET_RANGES.format('"off"')),
        r"scaling\.target_ranges needs scaling\.targets = 'ranges'",
        replace(PLAIN, tables=f"{REGRESSION}[scaling]\n" + TARGET_RANGES.format('"ranges"')),
    ),
    "clip of a split model": Refused(
        replace(PLAIN, tables=CLASSES + SPLIT, training="gradient_clip = 1.0\n"),
        r"training\.gradient_clip needs the gradient of the whole model at once, .*; leave gradient_clip out",
        replace(PLAIN, tables=CLASSES + SPLIT),
    ),
    "posterior of what is no likelihood": Refused(
        replace(PLAIN, tables=CLASSES + POSTERIOR, first='loss = "balanced_cross_entropy"\n'),
        r"\[posterior\] takes the loss for the negative logarithm of a likelihood, .*; write loss = \"cross_entropy\"",
        replace(PLAIN, tables=CLASSES + POSTERIOR, first='loss = "cross_entropy"\n'),
    ),
    "mean of what has no scale": Refused(
        replace(PLAIN, tables=CLASSES + '[scaling]\ninputs = "off"\n', inputs=WIDE + 'missing = "mean"\n'),
        r"input\.missing = 'mean' needs scaled inputs; write \[scaling\] inputs = 'fleet', or leave it out",
        replace(PLAIN, tables=CLASSES + FLEET, inputs=WIDE + 'missing = "mean"\n'),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_recipe_says_wrongly_is_refused_with_words_that_help(name: str, tmp_path: Path):
    refused = REFUSED[name]
    with pytest.raises(ConfigurationError) as raised:
        refused.wrong.read(tmp_path / "wrong")
    said = str(raised.value)
    assert re.search(refused.sentence, said), said
    assert "\n" not in said
    refused.right.read(tmp_path / "right")


def test_what_a_recipe_with_gossip_leaves_out_is_what_such_a_task_can_have(tmp_path: Path):
    task = replace(PLAIN, tables=CLASSES + '[gossip]\ntopology = "grid"\n').read(tmp_path / "whole").task
    assert (task.gossip, task.published) == (GossipPlan("grid"), AS_BUNDLED)
    parts = replace(IN_TURN, tables=IN_TURN.tables + '[gossip]\ntopology = "ring"\n')
    assert parts.read(tmp_path / "parts").task.aggregation.server_learning_rate == 1.0


def test_folder_without_a_recipe_is_told_what_belongs_there(tmp_path: Path):
    for missing in ("task.toml", "model.py"):
        PLAIN.read(tmp_path)
        (tmp_path / missing).unlink()
        with pytest.raises(ConfigurationError, match=rf"{missing}: .*; a recipe (holds|contains) model\.py and task"):
            read_recipe(tmp_path)
    PLAIN.read(tmp_path)
