"""Importing what lies beside a recipe's `model.py`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def importable(model: ModuleType, folder: Path) -> Iterator[None]:
    """While the block runs, `model` is known by its name (dataclasses look it up), and files beside it are modules.

    They are forgotten behind it: another recipe may have a file of the same name.
    """
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.modules[model.__name__] = model
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        beside = [name for name, each in sys.modules.items() if name not in before and _lies_in(each, folder)]
        for name in beside:
            del sys.modules[name]


def _lies_in(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).parent == folder
