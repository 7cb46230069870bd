"""`edgeflock simulate`: its options, for a fleet in virtual time and for one in containers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_protocol.aggregation_plan import StrategyName
from fleet_protocol.downlink_plan import Differences
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import TopologyName
from fleet_protocol.limits import MAX_SEQUENCE, MAX_SETTING
from workbench.privacy_modes.modes import PRIVACY_HELP, Mode
from workbench.simulation.on_ray.cluster import LOCAL

DOCKER_OPTIONS = ("fleet", "fault", "keep")
"""For a fleet in containers alone."""
SHARED_OPTIONS = ("docker", "seed", "out")
DOCKER_FOLDER = Path("fleet-run")
MINUTES = 10.0
"""Between checkpoints."""


def _option(metavar: str, words: str, **limits: float) -> Any:
    return typer.Option(metavar=metavar, help=words, min=limits.get("min"), max=limits.get("max"))


def simulate(
    context: typer.Context,
    *,
    devices: Annotated[int, _option("N", "How many devices.", min=1, max=1_000_000)] = 100,
    seed: Annotated[int, _option("N", "Fixes everything that is drawn.", min=0, max=MAX_SEQUENCE)] = 0,
    hours: Annotated[float, _option("HOURS", "Virtual hours.", min=0.01, max=87_600)] = 24.0,
    profile: Annotated[list[str] | None, _option("PROFILE", "Kind of device; several times for a mixed fleet.")] = None,
    trace: Annotated[Path | None, _option("FILE", "CSV file with a line per device, instead.")] = None,
    task: Annotated[str, _option("TASK", "Name of a shipped recipe, or folder of a bundle.")] = "digits",
    data: Annotated[
        str | None, _option("DATA", "Train for real: digits, or a file of samples. Without: a synthetic task.")
    ] = None,
    concurrent: Annotated[
        int | None,
        _option("N", "So many devices train at any time, instead of when samples arrive.", min=1, max=MAX_SETTING),
    ] = None,
    buffer_size: Annotated[
        int | None, _option("N", "Updates per version, instead of the task's.", min=1, max=MAX_SETTING)
    ] = None,
    keep_fraction: Annotated[float | None, _option("SHARE", "Share of entries sent, instead of the task's.")] = None,
    privacy: Annotated[Mode | None, typer.Option(help=PRIVACY_HELP)] = None,
    strategy: Annotated[
        StrategyName | None, typer.Option(help="How updates become a version, instead of the task's way.")
    ] = None,
    topology: Annotated[
        TopologyName | None,
        typer.Option(help="Without a coordinator: devices exchange models in this topology, instead of the task's."),
    ] = None,
    vote: Annotated[
        bool,
        typer.Option(
            "--vote", help="Without a coordinator: neighbours vote on the sign of each number, instead of a mean."
        ),
    ] = False,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="For large fleets: no message is signed, and none is compressed."),
    ] = False,
    target: Annotated[float | None, _option("SCORE", "Tell when this score is reached.")] = None,
    differences: Annotated[
        Differences | None, typer.Option(help="How versions travel down, instead of the task's way.")
    ] = None,
    precision_bits: Annotated[
        int | None, _option("BITS", "Of lossy differences, instead of the task's.", min=-4, max=16)
    ] = None,
    score_every: Annotated[
        int, _option("N", "Updates between two points of the history.", min=1, max=MAX_SETTING)
    ] = 100,
    memory_mib: Annotated[int, _option("MIB", "For the devices' residuals.", min=1, max=MAX_SETTING)] = 1024,
    checkpoint: Annotated[
        Path | None, _option("FILE", "Write the state here now and then; the same command goes on from it.")
    ] = None,
    checkpoint_minutes: Annotated[
        float | None, _option("MINUTES", "Of real time between checkpoints; ten, if not given.", min=0, max=MAX_SETTING)
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Compute rounds of --data on all CPUs, in a Ray cluster that is started here.")
    ] = False,
    ray_address: Annotated[
        str | None, _option("HOST:PORT", "With --ray: in this cluster, of which this machine is a part.")
    ] = None,
    out: Annotated[Path | None, _option("FOLDER", "Folder for what comes of it; in containers: fleet-run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    docker: Annotated[bool, typer.Option("--docker", help="In containers and real time instead.")] = False,
    fleet: Annotated[Path | None, _option("FILE", "In containers: fleet.toml, with the devices.")] = None,
    fault: Annotated[
        list[str] | None,
        _option("FAULT", "In containers: such as 'pause kitchen-3 after 20 s for 15 s'; several times for several."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="In containers: leave the fleet up.")] = False,
) -> None:
    """Run a fleet in virtual time, the code that ships without network, disk and waiting; or in containers."""
    _require_fitting(context, in_docker=docker)
    if docker:
        _in_docker(fleet, fault or [], seed, out, keep=keep)
        return
    from workbench.simulation.gossip.show import asked_plan, simulate_gossip  # noqa: PLC0415 - as below
    from workbench.simulation.show import Request, simulate  # noqa: PLC0415 - numpy and onnxruntime take a second
    from workbench.simulation.simulation import Options  # noqa: PLC0415

    if target is not None and not target <= 1:
        raise ConfigurationError(f"--target {target}: a score is at most 1")
    if keep_fraction is not None and not 0 < keep_fraction <= 1:
        raise ConfigurationError(f"--keep-fraction {keep_fraction}: must be above 0 and at most 1")
    if checkpoint_minutes is not None and checkpoint is None:
        raise ConfigurationError(f"--checkpoint-minutes {checkpoint_minutes:g}: --checkpoint FILE missing; add it")
    if ray_address is not None and not ray:
        raise ConfigurationError(f"--ray-address {ray_address}: --ray missing; add it")
    _require_one_fleet(context, trace)
    request = Request(
        devices,
        profile or ["pi-4"],
        trace,
        task,
        data,
        buffer_size,
        keep_fraction,
        differences,
        precision_bits,
        out,
        as_json,
        privacy,
        strategy,
        checkpoint,
        MINUTES if checkpoint_minutes is None else checkpoint_minutes,
        (ray_address or LOCAL) if ray else None,
    )
    options = Options(
        seed=seed,
        seconds=3600 * hours,
        target=target,
        score_every=score_every,
        concurrent=concurrent,
        memory_mib=memory_mib,
        plain=plain,
    )
    plan = asked_plan(request, options, topology, vote=vote)
    raise typer.Exit(code=simulate(request, options) if plan is None else simulate_gossip(request, options, plan))


def _require_fitting(context: typer.Context, *, in_docker: bool) -> None:
    """Refuse options that are for the other kind of fleet."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]
    wrong = [name for name in given if name not in SHARED_OPTIONS and (name in DOCKER_OPTIONS) != in_docker]
    if wrong:
        option = "--json" if wrong[0] == "as_json" else f"--{wrong[0].replace('_', '-')}"
        where = "virtual time: leave it or --docker out" if in_docker else "containers: add --docker, or leave it out"
        raise ConfigurationError(f"{option} is for a fleet in {where}")


def _require_one_fleet(context: typer.Context, trace: Path | None) -> None:
    """Refuse options that say what a trace says."""
    sources = {name: context.get_parameter_source(name) for name in ("devices", "profile")}
    given = [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]
    if trace is not None and given:
        raise ConfigurationError(f"--trace {trace}: its lines are the devices; leave out --{given[0]}")


def _in_docker(fleet: Path | None, faults: list[str], seed: int, out: Path | None, *, keep: bool) -> None:
    from workbench.docker_fleet.show import DockerRequest, simulate_in_docker  # noqa: PLC0415 - as above

    if fleet is None:
        raise ConfigurationError("--docker: --fleet FILE missing; write one: docs/fleet-in-docker.md")
    simulate_in_docker(DockerRequest(fleet, faults, seed, out or DOCKER_FOLDER, keep))
