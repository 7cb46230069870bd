"""`edgeflock split`: training that devices share with helpers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_protocol.limits import MAX_SEQUENCE, MAX_SETTING

split = typer.Typer(no_args_is_help=True, help="Models of which helpers run the blocks that devices are too weak for.")


@split.callback()
def _group() -> None:
    """With a callback, the only command keeps its name."""


def _option(metavar: str, words: str, **limits: float) -> Any:
    return typer.Option(metavar=metavar, help=words, min=limits.get("min"), max=limits.get("max"))


@split.command()
def plan(
    *,
    task: Annotated[str, _option("TASK", "Name of a shipped recipe, or folder of a bundle.")],
    fleet: Annotated[Path, _option("FILE", "fleet.toml, with its devices and helpers.")],
    helpers: Annotated[int | None, _option("N", "So many helpers, instead of the file's.", min=0, max=1000)] = None,
    helper_profile: Annotated[str, _option("PROFILE", "What kind of machine --helpers are.")] = "pi-5",
    samples: Annotated[
        int | None, _option("N", "Stored on each device, instead of as many as it keeps.", min=0, max=MAX_SETTING)
    ] = None,
    population: Annotated[int, _option("N", "Plans in a generation.", min=4, max=10_000)] = 64,
    generations: Annotated[int, _option("N", "Generations.", min=1, max=100_000)] = 150,
    crossover: Annotated[float, _option("CHANCE", "That a plan has two parents.", min=0, max=1)] = 0.9,
    mutation: Annotated[float, _option("CHANCE", "That a device's choice is drawn anew.", min=0, max=1)] = 0.02,
    seed: Annotated[int, _option("N", "Fixes everything that is drawn.", min=0, max=MAX_SEQUENCE)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show what each cut of a task costs each kind of device, and which of them a fleet should train with."""
    from workbench.split_planning.evolution import Evolution  # noqa: PLC0415 - rich takes a moment to import
    from workbench.split_planning.show import PlanRequest, show_plan  # noqa: PLC0415

    request = PlanRequest(task, fleet, helpers, helper_profile, samples, as_json)
    show_plan(request, Evolution(population, generations, crossover, mutation, seed))
