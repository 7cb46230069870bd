"""A recipe with other constants at the top of its `model.py`, and more classes than its task says."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

MODEL, TASK = "model.py", "task.toml"
CLASS_INPUT = "digit"


def write_variant(recipe: Path, folder: Path, constants: Mapping[str, object], classes: int) -> Path:
    """Write the recipe into `folder`, each `NAME: Final = value` with its new value; classes are 0 to `classes` - 1.

    Raises:
        ValueError: the recipe has no such constant.
    """
    folder.mkdir(parents=True)
    model = (recipe / MODEL).read_text(encoding="utf-8")
    for name, value in {**constants, "CLASSES": classes}.items():
        model, found = re.subn(rf"^{name}: Final = .*$", f"{name}: Final = {value!r}", model, flags=re.MULTILINE)
        if not found:
            raise ValueError(f"{recipe / MODEL}: has no line `{name}: Final = ...`; the constants are written so")
    task = (recipe / TASK).read_text(encoding="utf-8")
    head, section, rest = task.partition(f"[inputs.{CLASS_INPUT}]")
    rest = re.sub(r"^maximum = .*$", f"maximum = {classes - 1}", rest, count=1, flags=re.MULTILINE)
    (folder / MODEL).write_text(model, encoding="utf-8")
    (folder / TASK).write_text(head + section + rest, encoding="utf-8")
    for other in recipe.glob("*.py"):
        if other.name != MODEL:
            shutil.copy(other, folder)
    return folder
