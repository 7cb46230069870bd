"""Recipes written to a folder as people write them, in a few lines each."""

from pathlib import Path

LAST_TABLES = """
[training]
steps = 20
batch_size = 8
learning_rate = 0.05
[update]
keep_fraction = 0.5
[aggregation]
buffer_size = 1
"""
ONE_INPUT = """
[input]
shape = [8]
minimum = -1.0
maximum = 1.0
"""


def write_recipe(folder: Path, model: str, tables: str, *, first: str = "", inputs: str = ONE_INPUT) -> Path:
    """`first` are keys of task.toml in front of all tables, `tables` those of labels and of what is of interest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(model)
    text = f'task = "strange"\ntitle = "A stranger\'s"\nseed = 3\n{first}\n{inputs}\n{tables}\n{LAST_TABLES}'
    (folder / "task.toml").write_text(text)
    return folder
