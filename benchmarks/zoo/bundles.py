"""The zoo's bundles: each recipe with the default under test, exported once and kept until one of them changes."""

import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.zoo.fingerprints import fingerprint, sources
from benchmarks.zoo.tasks import RECIPES
from fleet_protocol.bundle import DESCRIPTION_FILE
from workbench.recipe_folder import TASK_FILE

DEFAULT = Path(__file__).parent / "default_under_test.toml"
MODEL_FILE = "model.py"


def bundle_folder(name: str, cache: Path) -> Path:
    """The bundle of a task, exported into `cache` if it is not there."""
    task = f"{(RECIPES / name / TASK_FILE).read_text()}\n{DEFAULT.read_text()}"
    model = (RECIPES / name / MODEL_FILE).read_text()
    folder = cache / f"{name}-{fingerprint([task, model, *sources('workbench/export')])}"
    if not (folder / DESCRIPTION_FILE).is_file():
        _export(task, model, folder)
    return folder


def _export(task: str, model: str, folder: Path) -> None:
    from workbench.export.bundle_writer import export_bundle  # noqa: PLC0415 - torch takes seconds to import

    with tempfile.TemporaryDirectory() as recipe:
        (Path(recipe) / TASK_FILE).write_text(task)
        (Path(recipe) / MODEL_FILE).write_text(model)
        export_bundle(Path(recipe), folder, tell=partial(print, file=sys.stderr))
