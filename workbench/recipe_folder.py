"""Where recipes and their bundles are: `models/` in a checkout, `workbench/recipes/` in an installed wheel."""

from pathlib import Path

from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError

TASK_FILE = "task.toml"
_PACKAGE = Path(__file__).resolve().parent
ROOTS = (_PACKAGE / "recipes", _PACKAGE.parent / "models")


def find_recipe(recipe: str) -> Path:
    """The folder of `recipe`: a path to one, or the name of one that ships with edgeflock, such as `digits`.

    Raises:
        ConfigurationError: there is none; the message lists those that ship.
    """
    candidates = [Path(recipe), *(root / recipe for root in ROOTS)]
    for folder in candidates:
        if (folder / TASK_FILE).is_file():
            return folder
    shipped = sorted({task.parent.name for root in ROOTS for task in root.glob(f"*/{TASK_FILE}")})
    raise ConfigurationError(
        f"{recipe}: no folder with a {TASK_FILE}, and no recipe of that name; edgeflock ships {', '.join(shipped)}"
    )


def find_bundle(task: str) -> Path:
    """The folder of a bundle: a path to one, or that of a recipe.

    Raises:
        ConfigurationError: there is none.
    """
    if (Path(task) / DESCRIPTION_FILE).is_file():
        return Path(task)
    folder = find_recipe(task) / "bundle"
    if not (folder / DESCRIPTION_FILE).is_file():
        raise ConfigurationError(f"{task}: has no bundle; export it and give the bundle's folder")
    return folder
