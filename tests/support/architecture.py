"""The picture in docs/architecture.md, drawn from the imports: `python -m tests.support.architecture` draws it anew.

A node is a package, or a folder or file at the top of one that has rooms. An arrow says "imports"; one that follows
from two others is left out.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import grimp

DOCUMENT = Path(__file__).parents[2] / "docs" / "architecture.md"
PACKAGES = (
    "workbench",
    "session_relay",
    "prompt_synthesis",
    "edge_agent",
    "broker_coordinator",
    "bundle_runtime",
    "fleet_host",
    "secure_aggregation",
    "fleet_protocol",
)
WITH_ROOMS = frozenset({"workbench", "session_relay", "edge_agent", "broker_coordinator"})
BEGIN = "<!-- drawn from the imports by: python -m tests.support.architecture -->\n```mermaid\n"
END = "```\n"

Arrows = Mapping[str, frozenset[str]]


def arrows() -> Arrows:
    """What each node imports."""
    graph = grimp.build_graph(*PACKAGES)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        imported = {_node(each) for each in graph.find_modules_directly_imported_by(module)}
        found.setdefault(_node(module), set()).update(imported - {_node(module)})
    return {node: frozenset(found[node]) for node in sorted(found)}


def circles(graph: Arrows) -> list[str]:
    """Nodes that lead back to themselves."""
    return [node for node in graph if any(node in _reachable(graph, next_node) for next_node in graph[node])]


def picture(graph: Arrows) -> str:
    """The graph in mermaid's words."""
    lines = ["flowchart TD"]
    for package in PACKAGES:
        nodes = [node for node in graph if node.split(".")[0] == package]
        if package in WITH_ROOMS:
            lines.append(f"  subgraph {package}")
            lines += [f"    {node}[{node.removeprefix(package + '.')}]" for node in nodes if node != package]
            lines.append("  end")
        else:
            lines.append(f"  {package}")
    lines += [f"  {start} --> {end}" for start, end in _needed(graph)]
    return "\n".join(lines) + "\n"


def drawn(text: str) -> str:
    """The picture that a document holds."""
    return text.split(BEGIN)[1].split(END, maxsplit=1)[0]


def _node(module: str) -> str:
    package, *rest = module.split(".")
    return f"{package}.{rest[0]}" if package in WITH_ROOMS and rest else package


def _needed(graph: Arrows) -> Iterator[tuple[str, str]]:
    for start, ends in graph.items():
        for end in sorted(ends):
            if not any(end in _reachable(graph, other) for other in ends - {end}):
                yield start, end


def _reachable(graph: Arrows, start: str) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        fresh = graph.get(waiting.pop(), frozenset()) - found
        found |= fresh
        waiting += fresh
    return found


def main() -> None:
    """Write the picture into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(text.replace(drawn(text), picture(arrows())), encoding="utf-8")


if __name__ == "__main__":
    main()
