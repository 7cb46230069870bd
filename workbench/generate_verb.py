"""`edgeflock generate`: pictures that a version of a task draws."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_protocol.drawing_plan import MAX_DRAWN_CLASSES
from fleet_protocol.limits import MAX_CLUSTERS, MAX_SEQUENCE

MOST_PICTURES = 10_000


def _option(metavar: str, words: str, **limits: float) -> Any:
    return typer.Option(metavar=metavar, help=words, min=limits.get("min"), max=limits.get("max"))


def generate(
    *,
    task: Annotated[str, _option("TASK", "The task's name with --config, else its bundle's folder or shipped recipe.")],
    out: Annotated[Path, _option("FOLDER", "New folder for the pictures.")],
    config: Annotated[Path | None, _option("FILE", "coordinator.toml, whose database has the versions.")] = None,
    version: Annotated[
        int | None, _option("N", "With --config: this version, not the newest.", min=0, max=MAX_SEQUENCE)
    ] = None,
    cluster: Annotated[
        int | None, _option("K", "With --config: the model of this cluster of devices.", min=1, max=MAX_CLUSTERS)
    ] = None,
    weights: Annotated[
        Path | None, _option("FILE", "In place of --config: what `broker-coordinator tasks export` wrote.")
    ] = None,
    label: Annotated[
        int | None, _option("CLASS", "Draw this class, not all.", min=0, max=MAX_DRAWN_CLASSES - 1)
    ] = None,
    count: Annotated[int, _option("N", "Pictures of each class.", min=1, max=MOST_PICTURES)] = 64,
    seed: Annotated[int, _option("N", "Fixes the pictures.", min=0, max=MAX_SEQUENCE)] = 0,
) -> None:
    """Draw pictures with a version of a task whose model draws some, and a grid of them."""
    from workbench.drawing.drawn_pictures import write_pictures  # noqa: PLC0415 - onnxruntime takes a while to import
    from workbench.drawing.model_at_hand import from_coordinator, from_file  # noqa: PLC0415

    found = (
        from_file(task, weights, version, cluster)
        if config is None
        else from_coordinator(task, config, version, cluster, weights)
    )
    labels = None if label is None else [label]
    written = write_pictures(found, out, labels, count, seed)
    print(f"{out}: {written} pictures of task {found.bundle.description.task}, and grid.png")
