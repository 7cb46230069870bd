"""The command `edgeflock`, on the operator's workstation."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec

from fleet_protocol.bundle import DESCRIPTION_FILE, parse_description
from fleet_protocol.downlink_plan import Differences
from fleet_protocol.errors import ConfigurationError, ProtocolError
from workbench.recipe_folder import find_recipe

try:
    import typer
except ModuleNotFoundError as error:
    if error.name != "typer":
        raise
    print(
        "edgeflock: typer is missing; install edgeflock with the extra `demo` or `workbench`:"
        " pip install 'edgeflock[demo]'",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
EXPORT_NEEDS = frozenset({"torch", "onnx", "onnx_ir", "onnxscript"})


@app.callback()
def edgeflock() -> None:
    """Fleets of small devices learn one model together."""


@app.command()
def export(
    recipe: Annotated[str, typer.Argument(help="Folder with model.py and task.toml, or the name of a shipped recipe.")],
    out: Annotated[Path, typer.Option(help="Folder for the bundle; made if it doesn't exist.")],
    ort_training: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON", help="Add what the engine ort-training needs, made by this Python, which has that engine."
        ),
    ] = None,
) -> None:
    """Turn a torch model into a task bundle that devices can train without torch."""
    folder = find_recipe(recipe)
    try:
        from workbench.export.bundle_writer import export_bundle  # noqa: PLC0415 - torch takes seconds to import
        from workbench.inspection.trial_round import try_round  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in EXPORT_NEEDS:
            raise
        raise ConfigurationError(f"export needs {error.name}: pip install 'edgeflock[workbench]'") from error
    description = export_bundle(folder, out, ort_training)
    total = sum(path.stat().st_size for path in out.iterdir() if path.name in {*description.files, "task.json"})
    print(f"{out}: task {description.task}, {description.parameter_count} parameters, {total / 1000:.1f} kB")
    if (unsteady := try_round(out, description, None).unsteady) is not None:
        print(f"edgeflock: a round on inputs spread over [input] of task.toml: {unsteady}", file=sys.stderr)


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="Folder of a task bundle.")],
    data: Annotated[Path | None, typer.Option(help="File of samples to try a round on, instead of drawn ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Say what a bundle is, what it needs of each kind of device, and whether all of it runs there."""
    try:
        from workbench.inspection.bundle_inspection import inspect_bundle  # noqa: PLC0415 - onnx takes a second to import
    except ModuleNotFoundError as error:
        if error.name not in EXPORT_NEEDS:
            raise
        raise ConfigurationError(f"inspect needs {error.name}: pip install 'edgeflock[workbench]'") from error
    from rich.console import Console  # noqa: PLC0415 - only tables need it

    from workbench.inspection.bundle_tables import print_inspection  # noqa: PLC0415

    inspection = inspect_bundle(bundle, data)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(inspection), indent=2).decode())
    else:
        print_inspection(inspection, Console())


@app.command()
def demo(
    agents: Annotated[int, typer.Option(min=1, max=64, help="How many agents, each a process of its own.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Fixes who gets which samples, and how fast.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for everything that the fleet and the demo write.")] = Path(
        "demo-run"
    ),
    broker: Annotated[str, typer.Option(help="auto, mosquitto, embedded, or HOST:PORT of one that runs.")] = "auto",
) -> None:
    """Watch a fleet learn handwritten digits on this machine, in under a minute."""
    from workbench.demo.show import show_demo  # noqa: PLC0415 - numpy and scikit-learn take a second to import

    show_demo(agents, seed, out, broker)


@app.command()
def simulate(
    *,
    devices: Annotated[int, typer.Option(min=1, max=100_000, help="How many devices.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Fixes everything that is drawn.")] = 0,
    hours: Annotated[float, typer.Option(min=0.01, help="Virtual hours.")] = 24.0,
    profile: Annotated[list[str] | None, typer.Option(help="Kind of device; several for a mixed fleet.")] = None,
    trace: Annotated[Path | None, typer.Option(help="CSV file with a line per device, instead.")] = None,
    task: Annotated[str, typer.Option(help="Name of a shipped recipe, or folder of a bundle.")] = "digits",
    data: Annotated[
        str | None, typer.Option(help="Train for real: digits, or a file of samples. Without: a synthetic task.")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="So many devices train at any time, instead of when samples arrive.")
    ] = None,
    buffer_size: Annotated[int | None, typer.Option(min=1, help="Updates per version, instead of the task's.")] = None,
    keep_fraction: Annotated[float | None, typer.Option(help="Share of entries sent, instead of the task's.")] = None,
    target: Annotated[float | None, typer.Option(help="Tell when this score is reached.")] = None,
    differences: Annotated[
        Differences | None, typer.Option(help="How versions travel down, instead of the task's way.")
    ] = None,
    precision_bits: Annotated[
        int | None, typer.Option(min=-4, max=16, help="Of lossy differences, instead of the task's.")
    ] = None,
    score_every: Annotated[int, typer.Option(min=1, help="Updates between two points of the history.")] = 100,
    memory_mib: Annotated[int, typer.Option(min=1, help="For the devices' residuals.")] = 1024,
    out: Annotated[Path | None, typer.Option(help="Folder for summary.json and history.jsonl.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run a fleet in virtual time: the code that ships, without network, disk and waiting."""
    from workbench.simulation.show import Request, simulate  # noqa: PLC0415 - numpy and onnxruntime take a second
    from workbench.simulation.simulation import Options  # noqa: PLC0415

    if keep_fraction is not None and not 0 < keep_fraction <= 1:
        raise ConfigurationError(f"--keep-fraction {keep_fraction}: must be above 0 and at most 1")
    status = simulate(
        Request(
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
        ),
        Options(
            seed=seed,
            seconds=3600 * hours,
            target=target,
            score_every=score_every,
            concurrent=concurrent,
            memory_mib=memory_mib,
        ),
    )
    raise typer.Exit(code=status)


@app.command()
def decode(
    file: Annotated[str, typer.Argument(help="A captured message, as it is or in hex; - for standard input.")],
    *,
    topic: Annotated[str | None, typer.Option(help="The topic on which it was captured.")] = None,
    key: Annotated[str | None, typer.Option(help="The sender's public key, 64 hex digits.")] = None,
    database: Annotated[Path | None, typer.Option(help="The coordinator's database, for its devices' keys.")] = None,
    config: Annotated[Path | None, typer.Option(help="coordinator.toml: its database, key and bundles.")] = None,
    coordinator_key_file: Annotated[
        Path | None, typer.Option(help="The coordinator's private key file, to open encrypted updates.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="The task's bundle, for the shapes of its tensors.")] = None,
) -> None:
    """Show what a message says: sender, kind, base version, packing, and whether its signature is valid.

    Ends with code 1 where a check that could be made has failed.
    """
    from workbench.inspection.coordinator_files import (  # noqa: PLC0415 - needs SQLAlchemy
        context_of_coordinator,
        private_key,
        registered_devices,
    )
    from workbench.inspection.decode import DecodingContext, describe, message_bytes, parse_key  # noqa: PLC0415 - export does without numpy

    context = context_of_coordinator(config) if config else DecodingContext()
    context = DecodingContext(
        topic=topic,
        key=parse_key(key) if key else None,
        devices=registered_devices(database) if database else context.devices,
        coordinator=context.coordinator,
        tasks=[parse_description(_read(bundle / DESCRIPTION_FILE))] if bundle else context.tasks,
        decryption_key=private_key(coordinator_key_file) if coordinator_key_file else context.decryption_key,
    )
    described = describe(message_bytes(sys.stdin.buffer.read() if file == "-" else _read(Path(file))), context)
    for label, words in described.lines:
        print(f"{label:20}{words}")
    raise typer.Exit(code=int(described.refuted))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error


def main() -> None:
    """Run `edgeflock`. An error that the operator can correct is one line on stderr and exit code 2."""
    try:
        app()
    except (ConfigurationError, ProtocolError) as error:
        print(f"edgeflock: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
