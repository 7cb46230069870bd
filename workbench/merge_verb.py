"""`edgeflock merge`: the plain model of a task whose model is compressed."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The bundle's folder, or the name of a shipped recipe.")],
    weights: Annotated[Path, typer.Option(metavar="FILE", help="What `broker-coordinator tasks export` wrote.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="New safetensors file.")],
) -> None:
    """Write the weights of a bundle with [compression] as those of the torch module that its recipe builds."""
    from safetensors.numpy import save  # noqa: PLC0415 - numpy takes a while to import

    from broker_coordinator.commands.export import write_model  # noqa: PLC0415 - needs SQLAlchemy
    from bundle_runtime.plain_model import plain_model  # noqa: PLC0415 - onnxruntime takes a while to import
    from workbench.drawing.model_at_hand import from_file  # noqa: PLC0415

    found = from_file(task, weights, version=None, cluster=None)
    tensors = plain_model(found.bundle, found.weights)
    write_model(out, save(tensors))
    print(f"{out}: {len(tensors)} tensors of task {found.bundle.description.task}, under the names of build()'s module")
