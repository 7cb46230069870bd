"""The recipe for digits with privacy of samples: what it changes of `task.toml`."""

from pathlib import Path

DIGITS = Path(__file__).parents[2] / "models" / "digits"

OFF = "validation_share = 0\nmaximum_epochs = 0\nepochs_per_round = 0"
PROMISE = "[privacy.samples]\nepsilon = 4\nrounds = 3\n"


def private_recipe(folder: Path, *edits: tuple[str, str], promise: str = PROMISE, off: str = OFF) -> Path:
    """The recipe in a new `folder`, with `promise` behind it, and each place in `edits` changed."""
    text = (DIGITS / "task.toml").read_text()
    rate = "learning_rate = 0.3\n"
    for old, new in (("balanced_cross_entropy", "cross_entropy"), (rate, f"{rate}{off}\n"), *edits):
        if old not in text:
            raise ValueError(f"task.toml of digits has no {old!r}")
        text = text.replace(old, new, 1)
    folder.mkdir(parents=True)
    (folder / "model.py").write_text((DIGITS / "model.py").read_text())
    (folder / "task.toml").write_text(f"{text}\n{promise}")
    return folder
