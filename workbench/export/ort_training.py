"""The files that the engine `ort-training` adds to a bundle, made by a Python that has onnxruntime-training-cpu."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from fleet_host.child_process import bound
from fleet_protocol.bundle_files import ORT_CHECKPOINT_FILE, ORT_OPTIMISER_FILE, ORT_TRAINING_FILE
from fleet_protocol.errors import ConfigurationError
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.export.conversion.unexportable import explained
from workbench.export.graphs.objective_graph import objective_graph
from workbench.export.recipe.probe import probe_inputs
from workbench.export.recipe.recipe import Recipe

PROGRAM = Path(__file__).with_name("ort_artifacts.py")
FILES = (ORT_TRAINING_FILE, ORT_OPTIMISER_FILE, ORT_CHECKPOINT_FILE)


def ort_training_files(recipe: Recipe, python: Path) -> dict[str, bytes]:
    """Name to content of the artifacts; the same recipe gives the same bytes.

    Raises:
        ConfigurationError: the recipe asks for what that engine can't do, or `python` can't make artifacts.
    """
    recipe.set_training(True)
    with explained(ORT_TRAINING_FILE, recipe.module, probe_inputs(recipe.task, 1)):
        model = checked_model(objective_graph(recipe))
    names = [parameter.name for parameter in recipe.parameters]
    model.metadata_props.add(key="parameters", value=json.dumps(names))
    training = recipe.task.training
    with tempfile.TemporaryDirectory() as folder:
        objective = Path(folder, "objective.onnx")
        objective.write_bytes(model.SerializeToString(deterministic=True))
        command = [str(python), str(PROGRAM), str(objective), folder, "--optimiser", training.optimiser]
        command += ["--weight-decay", str(training.weight_decay), "--gradient-clip", str(training.gradient_clip)]
        _run(command)
        return {name: Path(folder, name).read_bytes() for name in FILES}


def _run(command: list[str]) -> None:
    try:
        # Names in sets must come in the same order every time.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        subprocess.run(bound(command), check=True, capture_output=True, text=True, env=environment)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise ConfigurationError(
            f"--ort-training {command[0]}: {said.strip().splitlines()[-1]}; it must be a Python with"
            " onnxruntime-training-cpu==1.19.2 and onnx (docs/training-engines.md)"
        ) from error
