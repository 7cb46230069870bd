"""The picture of a task's life cycle in docs/agent.md: `python -m tests.support.lifecycle` draws it anew."""

from pathlib import Path

from edge_agent.core.lifecycle import TRANSITIONS

DOCUMENT = Path(__file__).parents[2] / "docs" / "agent.md"
BEGIN = "<!-- drawn from the table by: python -m tests.support.lifecycle -->\n```mermaid\n"
END = "```\n"


def picture() -> str:
    """The table of transitions in mermaid's words."""
    lines = (f"  {before} --> {after}: {event}" for (before, event), after in TRANSITIONS.items())
    return "\n".join(("stateDiagram-v2", "  [*] --> sleeping", *lines)) + "\n"


def drawn(text: str) -> str:
    """The picture that a document holds."""
    return text.split(BEGIN)[1].split(END, maxsplit=1)[0]


def main() -> None:
    """Write the picture into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(text.replace(BEGIN + drawn(text), BEGIN + picture()), encoding="utf-8")


if __name__ == "__main__":
    main()
