"""Write all references into docs/: `python -m tests.support.reference`."""

from pathlib import Path

from tests.support.reference import commands, configuration, messages

FOLDER = Path(__file__).parents[3] / "docs"


def documents() -> dict[str, str]:
    """By file name, what it should hold."""
    made = {name: configuration.document(title, files) for name, (title, files) in configuration.REFERENCES.items()}
    return made | {
        "command-reference.md": commands.document(commands.programs()),
        "message-reference.md": messages.document(),
    }


if __name__ == "__main__":
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
