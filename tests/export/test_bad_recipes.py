"""A recipe whose code fails, never ends, or makes what can't train gets one sentence at once; its advice works."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet_protocol.errors import ConfigurationError
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe import model_checks, model_code
from workbench.export.recipe.recipe import read_recipe

TASK = """
task = "brought"
title = "Brought along"
{more}
[input]
shape = [8]
minimum = {minimum}
maximum = 20.0
[label]
classes = 3
[training]
steps = 2
batch_size = 4
learning_rate = 0.1
[update]
keep_fraction = 1.0
[aggregation]
buffer_size = 1
"""
MODEL = """
import sys
from pathlib import Path
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        {init}
        self.layer = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return {forward}

def build():
    {build}
"""
USUAL = "self.head(torch.tanh(self.layer(x)))"


def model(init: str = "pass", forward: str = USUAL, build: str = "return Model()") -> str:
    """The text of a model.py."""
    return MODEL.format(init=init, forward=forward, build=build)


@dataclass(frozen=True, slots=True)
class Bad:
    """A `model.py`, what is said of it, and one that does what it is advised; `more` are keys of task.toml."""

    model: str
    sentence: str
    remedied: str
    more: str = ""
    more_remedied: str | None = None
    minimum: str = "0.0"


LOOP = "self.head(torch.tanh(self.layer(x + sum([x] * {count}) - {count} * x)))"
BIG = model(init="self.big = nn.Linear(8, 40)", forward=USUAL.replace("(x)", "(x + self.big(x).mean(1, keepdim=True))"))
TIED = model(
    init="self.tokens = nn.Embedding(21, 6); self.scores = nn.Linear(6, 21, bias=False); {tie}",
    forward="self.head(self.scores(self.tokens(x.long()).mean(1))[:, :6])",
)
IDS = model(
    init="self.tokens = nn.Embedding(20, 6)", forward="self.head(self.tokens(x.long(){shift}).mean(1) + self.layer(x))"
)
PLAIN = model()
HOOKED = "model = Model(); model.layer.weight.register_hook(lambda gradient: gradient / 2); return model"
SLOWED = "self.head(torch.tanh((lambda layer: layer / 2 + (layer - layer / 2).detach())(self.layer(x))))"
NOISY = (
    "self.noise = type('Noise', (nn.Module,), {'forward': lambda part, x:"
    " x + numpy.random.rand(1)[0] if part.training else x})()"
)
WITH_FILES = """
from __future__ import annotations
from dataclasses import dataclass
from layers import WIDTH
from torch import nn

@dataclass
class Settings:
    width: int = WIDTH

def build():
    return nn.Linear(8, Settings().width)
"""
BAD = {
    "missing file": Bad(
        model(init="Path('scale.txt').read_text()"),
        r"failed in line 10 of model\.py: FileNotFoundError: .*'scale\.txt'; .*Path\(__file__\)\.parent",
        model(init="(Path(__file__).parent / 'scale.txt').read_text()"),
    ),
    "missing module": Bad(
        "import no_such_package\n" + PLAIN,
        r"in line 1 of model\.py: ModuleNotFoundError: .*; install it where .*, or put its file beside model\.py",
        "import no_such_package_but_a_file\n" + PLAIN,
    ),
    "GPU to build": Bad(
        model(build="return Model().cuda()"),
        r"line 18 of model\.py: .*; leave out \.cuda\(\) and device=\"cuda\"",
        PLAIN,
    ),
    "GPU to run": Bad(
        model(forward=USUAL.replace("(x)", "(x.to('cuda'))")),
        r"forward\(\) .* failed in line 15 of model\.py: .*; leave out \.cuda\(\) and device=\"cuda\"",
        PLAIN,
    ),
    "exit": Bad(
        "exit()\n" + PLAIN,
        r"line 1 of model\.py: SystemExit.*; take exit\(\) out, or .* if __name__ == '__main__'",
        "if __name__ == '__main__':\n    exit()\n" + PLAIN,
    ),
    "typing": Bad(
        model(build="input(); return Model()"),
        r"line 18 of model\.py: .*take input\(\) out",
        PLAIN,
    ),
    "no memory": Bad(
        model(init="raise MemoryError"),
        r"line 10 of model\.py: MemoryError.*; make the model smaller",
        PLAIN,
    ),
    "never built": Bad(
        model(build="while True: pass"),
        r"building the model has not ended after 1 s in line 18 of model\.py; if it fetches files, fetch them before",
        PLAIN,
    ),
    "never done, whatever it catches": Bad(
        model(forward="forever()") + "def forever():\n    while True:\n        try:\n            pass\n"
        "        except Exception:\n            pass\n",
        r"forward\(\) .* has not ended after 1 s in line 2\d of model\.py",
        PLAIN,
    ),
    "too many operators": Bad(
        model(forward=LOOP.format(count=6000)),
        r"forward\(\) .* failed .*more than MOST_OPERATORS \(5000\).*; put torch\.cumsum, a convolution, nn\.GRU",
        model(forward=USUAL.replace("(x)", "(x.cumsum(1))")),
    ),
    "not a module": Bad(model(build="return 3"), r"build\(\) must return a torch\.nn\.Module, it returned int", PLAIN),
    "compiled": Bad(
        model(init="self.inner = torch.jit.script(nn.Linear(8, 8))", forward=USUAL.replace("(x)", "(self.inner(x))")),
        r"module 'inner' is compiled by torch\.jit.*; give the nn\.Module that it was made from",
        model(init="self.inner = nn.Linear(8, 8)", forward=USUAL.replace("(x)", "(self.inner(x))")),
    ),
    "no parameters": Bad(
        model(build="return nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(3))"),
        r"model\.py: the model has no parameters.*; give it a layer with some",
        model(build="return nn.Sequential(nn.Linear(8, 8), nn.AdaptiveAvgPool1d(3))"),
    ),
    "gives back its inputs": Bad(
        model(forward="x[:, :3]"),
        r"model\.py: what forward\(\) returns depends on no parameter that trains; let it return what the layers make",
        PLAIN,
    ),
    "detached": Bad(
        model(forward=f"({USUAL}).detach()"), r"model\.py: .*depends on no parameter that trains.*detach\(\)", PLAIN
    ),
    "double": Bad(
        model(init="self.other = nn.Linear(8, 8, dtype=torch.float64)"),
        r"parameter 'other\.weight' is torch\.float64, requires_grad=True; every parameter must be a trainable float32",
        model(init="self.other = nn.Linear(8, 8)"),
    ),
    "frozen by torch": Bad(
        model(build="model = Model(); model.layer.weight.requires_grad_(False); return model"),
        r"parameter 'layer\.weight' is torch\.float32, requires_grad=False; .*task\.toml says which ones train",
        PLAIN,
        more_remedied='trainable = ["head.*"]',
    ),
    "too many train": Bad(
        BIG,
        r"task\.toml: 435 values train, more than MAX_PARAMETERS \(400\); name the ones that should in trainable",
        BIG,
        more_remedied='trainable = ["head.*"]',
    ),
    "too much is frozen": Bad(
        model(init="self.big = nn.Linear(8, 90)"),
        r"task\.toml: what is frozen takes .* MiB in a graph, more than MAX_BLOB_BYTES .*; make the model smaller",
        PLAIN,
        more='trainable = ["head.*"]',
    ),
    "shared with the backbone": Bad(
        TIED.replace("{tie}", "self.scores.weight = self.tokens.weight"),
        r"'tokens\.weight' and 'scores\.weight' are one tensor; .*copy it in build\(\), with clone\(\)",
        TIED.replace("{tie}", "self.scores.weight = nn.Parameter(self.tokens.weight.detach().clone())"),
        more='backbone.module = "tokens"',
    ),
    "no build": Bad("net = 3", r"no function build\(\); write one that returns the torch\.nn\.Module", PLAIN),
    "build wants arguments": Bad(
        PLAIN.replace("def build():", "def build(width):"),
        r"build\(\) is called without arguments; give 'width' a default",
        PLAIN.replace("def build():", "def build(width=3):"),
    ),
    "layer that is never called": Bad(
        model(init="self.unused = nn.LazyLinear(3)"),
        r"'unused\.weight' has no shape, as forward\(\) never calls 'unused'; leave that layer out",
        PLAIN,
    ),
    "empty parameter": Bad(
        model(init="self.prompt = nn.Parameter(torch.zeros(0, 6))", forward=f"{USUAL} + self.prompt.sum()"),
        r"parameter 'prompt' of shape \[0, 6\] is empty; leave it out",
        PLAIN,
    ),
    "hook on a parameter": Bad(
        model(build=HOOKED),
        r"parameter 'layer\.weight' has a hook on its gradient; .* scale a gradient by a in forward\(\), as x \* a \+",
        model(forward=SLOWED),
    ),
    "hook on a layer": Bad(
        model(build="model = Model(); model.layer.register_full_backward_hook(lambda *_: None); return model"),
        r"module 'layer' \(Linear\) has a backward hook; hooks do not run on a device: take it out",
        PLAIN,
    ),
    "written into what its gradient needs": Bad(
        model(forward="self.head(torch.tanh(self.layer(x)).mul_(2))"),
        r"forward\(\) and its backward pass failed: .*; compute a new one, x = x \+ 1 instead of x \+= 1",
        model(forward="self.head(torch.tanh(self.layer(x)) * 2)"),
    ),
    "counts its calls": Bad(
        model(init="self.calls = [0]", forward=f"(self.calls.append(0), {USUAL} * len(self.calls))[1]"),
        r"the model itself \(Model\) gives something else when it is called with the same again.*; keep nothing",
        PLAIN,
    ),
    "draws with random": Bad(
        "import random\n" + model(forward=f"{USUAL} * random.random()"),
        r"gives something else when .*; .*draw with torch\.rand or torch\.randn",
        model(forward=f"{USUAL} * torch.rand(())"),
    ),
    "draws with numpy in training": Bad(
        "import numpy\n" + model(init=NOISY, forward="self.head(self.noise(self.layer(x)))"),
        r"module 'noise' \(Noise\) gives something else when .*; .*draw with torch\.rand or torch\.randn",
        model(
            init=NOISY.replace("numpy.random.rand()", "torch.rand(())"), forward="self.head(self.noise(self.layer(x)))"
        ),
    ),
    "ids beyond the table": Bad(
        IDS.replace("{shift}", ""),
        r"forward\(\) of f32\[2, 8\], full of input\.maximum, .*IndexError.*; .* its minimum and maximum, in task",
        IDS.replace("{shift}", " - 1"),
        minimum="1.0",
    ),
}


def write_recipe(folder: Path, text: str, more: str, minimum: str) -> Path:
    folder.mkdir()
    (folder / "model.py").write_text(text)
    (folder / "task.toml").write_text(TASK.format(more=more, minimum=minimum))
    (folder / "scale.txt").write_text("1")
    (folder / "no_such_package_but_a_file.py").write_text("")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_recipe_that_can_not_train_is_told_why_and_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(model_checks, "MAX_PARAMETERS", 400)
    monkeypatch.setattr(model_checks, "MAX_BLOB_BYTES", 2000)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    bad = BAD[name]
    with pytest.raises(ConfigurationError) as raised, monkeypatch.context() as patches:
        if name.startswith("never"):
            patches.setattr(model_code, "LONGEST_SECONDS", 1)
        read_recipe(write_recipe(tmp_path / "bad", bad.model, bad.more, bad.minimum))
    said = str(raised.value)
    assert re.search(bad.sentence, said), said
    assert "\n" not in said
    more = bad.more if bad.more_remedied is None else bad.more_remedied
    read_recipe(write_recipe(tmp_path / "good", bad.remedied, more, bad.minimum))


def test_model_that_prints_leaves_standard_output_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = model(init="print('built')", forward=f"(print('run', x.mean()), {USUAL})[1]")
    files = bundle_files(read_recipe(write_recipe(tmp_path / "recipe", text, "", "0.0")), tell=lambda _: None)
    captured = capsys.readouterr()
    assert "task.json" in files
    assert captured.out == ""
    assert captured.err.count("built") == 1
    assert "Fake" not in captured.err


@pytest.mark.parametrize(
    "text",
    [
        model(build="return torch.compile(Model())"),
        model(
            init="self.inner = torch.compile(mode='default')(nn.Linear(8, 8))",
            forward=USUAL.replace("x", "self.inner(x)"),
        ),
        model(forward=USUAL.replace("torch.tanh", "activated"))
        + "@torch.compile\ndef activated(x):\n    return torch.tanh(x) * x\n",
    ],
    ids=["whole", "layer", "function"],
)
def test_what_is_compiled_is_exported_as_it_was_written(text: str, tmp_path: Path):
    files = bundle_files(read_recipe(write_recipe(tmp_path / "recipe", text, "", "0.0")), tell=lambda _: None)
    assert "train.onnx" in files


def test_files_beside_a_model_are_its_own(tmp_path: Path):
    """Two recipes may each have a layers.py; dataclasses look up where they were defined."""
    for name, width in (("one", 3), ("two", 4)):
        folder = write_recipe(tmp_path / name, WITH_FILES, "", "0.0")
        (folder / "layers.py").write_text(f"WIDTH = {width}\n")
        (folder / "task.toml").write_text(
            (folder / "task.toml").read_text().replace("classes = 3", f"classes = {width}")
        )
        assert read_recipe(folder).parameters[0].shape == [width, 8]
