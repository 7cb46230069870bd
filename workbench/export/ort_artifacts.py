"""Artifacts for the engine `ort-training`, made in an environment that has onnxruntime-training-cpu.

That package can't be installed beside onnxruntime, so the workbench runs this file as a program of its own:

    python ort_artifacts.py OBJECTIVE OUT --optimiser sgd|adamw [--weight-decay X] [--gradient-clip X]
"""

import argparse
import json
import os
import sys
import types
from pathlib import Path

import onnx

# Read on import: see bundle_runtime.graph, which the package that this runs beside does not have.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

NAMES = {
    "training_model.onnx": "ort_training.onnx",
    "optimizer_model.onnx": "ort_optimiser.onnx",
    "nominal_checkpoint": "ort_checkpoint.bin",
}
IR_VERSION = 8
ADAM_EPSILON = 1e-8
"""As in torch and in the graphs of the default engine; that package's own default is 1e-6."""

ADAM_MODE = 0
"""Decays the weights before the step, as torch does; that package's own default, 1, decays them after it."""


def generate(objective: Path, out: Path, optimiser: str, weight_decay: float, gradient_clip: float) -> None:
    """Write the three artifacts for the objective graph into `out`, under the names that they have in a bundle."""
    artifacts = _artifacts_without_torch()
    blocks = artifacts.onnxblock.optim
    clip = blocks.ClipGradNorm(gradient_clip) if gradient_clip else None
    model = onnx.load(objective)
    artifacts.generate_artifacts(
        model,
        requires_grad=json.loads(next(entry.value for entry in model.metadata_props if entry.key == "parameters")),
        optimizer=blocks.AdamW(eps=ADAM_EPSILON, weight_decay=weight_decay, clip_grad=clip)
        if optimiser == "adamw"
        else blocks.SGD(clip_grad=clip),
        additional_output_names=[output.name for output in model.graph.output[1:]] or None,
        artifact_directory=out,
        nominal_checkpoint=True,
    )
    for theirs, ours in NAMES.items():
        (out / theirs).rename(out / ours)
    optimiser_model = onnx.load(out / NAMES["optimizer_model.onnx"])
    optimiser_model.ir_version = IR_VERSION  # the installed onnx writes its newest, which 1.19.2 can't read
    for attribute in (entry for node in optimiser_model.graph.node for entry in node.attribute):
        if attribute.name == "adam_mode":
            attribute.i = ADAM_MODE
    onnx.save(optimiser_model, out / NAMES["optimizer_model.onnx"])


def _artifacts_without_torch() -> types.ModuleType:
    """The module `onnxruntime.training.artifacts`.

    The package's `__init__` imports torch for parts that have nothing to do with artifacts, so an empty package with
    the same path stands in for it.
    """
    package = types.ModuleType("onnxruntime.training")
    package.__path__ = [str(Path(onnxruntime.__file__).parent / "training")]
    sys.modules[package.__name__] = package
    from onnxruntime.training import artifacts  # noqa: PLC0415 - found through the stand-in

    return artifacts  # type: ignore[no-any-return] # untyped


def main() -> None:
    """Parse the arguments and generate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objective", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--optimiser", choices=["sgd", "adamw"], required=True)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--gradient-clip", type=float, default=0.0)
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(3)
    generate(arguments.objective, arguments.out, arguments.optimiser, arguments.weight_decay, arguments.gradient_clip)


if __name__ == "__main__":
    main()
