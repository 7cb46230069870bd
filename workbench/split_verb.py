"""`edgeflock split`: training that devices share with helpers."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_host.lasting_imports import lasting_imports
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_SEQUENCE, MAX_SETTING
from workbench.recipe_folder import find_bundle, find_recipe

split = typer.Typer(no_args_is_help=True, help="Models of which helpers run the blocks that devices are too weak for.")


@split.callback()
def _group() -> None:
    """With a callback, the only command keeps its name."""


def _option(metavar: str, words: str, **limits: float) -> Any:
    return typer.Option(metavar=metavar, help=words, min=limits.get("min"), max=limits.get("max"))


@split.command()
def plan(
    *,
    task: Annotated[str, _option("TASK", "Name of a recipe, or folder of a bundle; without one it is exported.")],
    fleet: Annotated[Path, _option("FILE", "fleet.toml, with its devices and helpers.")],
    helpers: Annotated[int | None, _option("N", "So many helpers, instead of the file's.", min=0, max=1000)] = None,
    helper_profile: Annotated[str, _option("PROFILE", "What kind of machine --helpers are.")] = "pi-5",
    samples: Annotated[
        int | None, _option("N", "Stored on each device, instead of as many as it keeps.", min=0, max=MAX_SETTING)
    ] = None,
    seconds_per_mb: Annotated[
        float, _option("SECONDS", "What a megabyte is worth: fewer bytes for longer steps.", min=0, max=1e6)
    ] = 0.0,
    front: Annotated[
        bool, typer.Option("--front", help="Also plans that are better in bytes than in seconds.")
    ] = False,
    population: Annotated[int, _option("N", "Plans in a generation.", min=4, max=10_000)] = 64,
    generations: Annotated[int, _option("N", "Generations.", min=1, max=100_000)] = 150,
    crossover: Annotated[float, _option("CHANCE", "That a plan has two parents.", min=0, max=1)] = 0.9,
    mutation: Annotated[float, _option("CHANCE", "That a device's choice is drawn anew.", min=0, max=1)] = 0.02,
    seed: Annotated[int, _option("N", "Fixes everything that is drawn.", min=0, max=MAX_SEQUENCE)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show what each cut of a task costs each kind of device, and which of them a fleet should train with."""
    from workbench.split_planning.evolution import Evolution  # noqa: PLC0415 - rich takes a moment to import
    from workbench.split_planning.planning import Wanted  # noqa: PLC0415
    from workbench.split_planning.show import PlanRequest, show_plan  # noqa: PLC0415

    how = Evolution(population, generations, crossover, mutation, seed)
    with _bundle(task) as bundle:
        show_plan(
            PlanRequest(bundle, fleet, helpers, helper_profile, as_json), Wanted(how, samples, seconds_per_mb, front)
        )


@contextmanager
def _bundle(task: str) -> Iterator[Path]:
    """The folder of a task's bundle; of a recipe that has none, one that is made for now."""
    try:
        found = find_bundle(task)
    except ConfigurationError:
        recipe = find_recipe(task)
    else:
        yield found
        return
    with lasting_imports():
        import torch  # noqa: PLC0415 - it takes seconds to import

        from workbench.export.bundle_writer import export_bundle  # noqa: PLC0415 - imports torch

    print(
        f"edgeflock: {task} has no bundle and is exported for this plan, which takes a minute or two; to keep one:"
        f" edgeflock export {task} --out FOLDER, and then --task FOLDER",
        file=sys.stderr,
    )
    torch.set_num_threads(1)  # threads that wait for one another take half of a small model's export
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(recipe, Path(folder), tell=lambda _: None)
        yield Path(folder)
