"""The zoo's bundles: each recipe with the default under test, exported once and kept until one of them changes."""

import json
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.zoo.fingerprints import fingerprint, sources
from benchmarks.zoo.rules import Settings, merged
from benchmarks.zoo.tasks import RECIPES
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from workbench.recipe_folder import TASK_FILE

DEFAULT = Path(__file__).parent / "default_under_test.toml"
MODEL_FILE = "model.py"
EXPORTED_BY = ("workbench/export", "fleet_protocol")
"""What a bundle follows from besides its recipe: who writes it, and the defaults of what is written."""


def bundle_folder(name: str, cache: Path, changes: Settings) -> Path:
    """The bundle of a task with `changes` to the default under test, exported into `cache` if it is not there."""
    recipe = tomllib.loads((RECIPES / name / TASK_FILE).read_text())
    task = written(merged(merged(recipe, tomllib.loads(DEFAULT.read_text())), changes))
    model = (RECIPES / name / MODEL_FILE).read_text()
    folder = cache / f"{name}-{exported_from(task, model)}"
    if not (folder / DESCRIPTION_FILE).is_file():
        _export(task, model, folder)
    return folder


def exported_from(task: str, model: str) -> str:
    """What tells a bundle apart from those of other recipes, exporters and defaults."""
    return fingerprint([task, model, *sources(*EXPORTED_BY)])


def written(settings: Settings) -> str:
    """Settings as TOML, in which values are written as in JSON; what is no table comes first."""
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: Settings) -> Iterator[str]:
    for key, value in settings.items():
        if not isinstance(value, Mapping):
            yield f"{key} = {json.dumps(value)}"
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield f"[{key}]"
            yield from _lines(value)


def _export(task: str, model: str, folder: Path) -> None:
    from workbench.export.bundle_writer import export_bundle  # noqa: PLC0415 - torch takes seconds to import

    with tempfile.TemporaryDirectory() as recipe:
        (Path(recipe) / TASK_FILE).write_text(task)
        (Path(recipe) / MODEL_FILE).write_text(model)
        export_bundle(Path(recipe), folder, tell=partial(print, file=sys.stderr))
