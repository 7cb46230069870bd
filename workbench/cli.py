"""The command `edgeflock`, on the operator's workstation."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fleet_host.command_line import DISTRIBUTION, write_error
from fleet_host.extras import missing_extra_named
from fleet_host.lasting_imports import lasting_imports
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError, ProtocolError, why_unreadable
from fleet_protocol.limits import MAX_SEQUENCE
from workbench.recipe_folder import find_bundle, find_recipe

PROGRAM = "edgeflock"

with missing_extra_named(PROGRAM), lasting_imports():
    import typer

    from workbench.dashboard_verb import dashboard
    from workbench.flash_verb import flash
    from workbench.generate_verb import generate
    from workbench.merge_verb import merge
    from workbench.privacy_modes.modes import PRIVACY_HELP, Mode
    from workbench.profile_verbs import profiles
    from workbench.simulate_verb import simulate
    from workbench.split_verb import split

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(profiles, name="profiles")
app.add_typer(split, name="split")
app.command()(dashboard)
app.command()(flash)
app.command()(generate)
app.command()(merge)
app.command()(simulate)


def _option(metavar: str, words: str, **limits: float) -> Any:
    return typer.Option(metavar=metavar, help=words, min=limits.get("min"), max=limits.get("max"))


def _argument(metavar: str, words: str) -> Any:
    return typer.Argument(metavar=metavar, help=words)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"{PROGRAM} {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def edgeflock(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Fleets of small devices learn one model together."""


@app.command()
def export(
    recipe: Annotated[
        str,
        _argument("RECIPE", "Folder with model.py and task.toml, or the name of a shipped recipe."),
    ],
    out: Annotated[Path, _option("FOLDER", "Folder for the bundle; made if it doesn't exist.")],
    ort_training: Annotated[
        Path | None,
        _option("PYTHON", "Add what the engine ort-training needs, made by this Python, which has that engine."),
    ] = None,
    data: Annotated[
        Path | None, _option("FILE", "Samples to find a missing learning rate on, instead of random ones.")
    ] = None,
    weights: Annotated[
        Path | None,
        _option(
            "FILE",
            "Weights to begin with, not those of build(): what `broker-coordinator tasks export` or `edgeflock merge`"
            " wrote.",
        ),
    ] = None,
) -> None:
    """Turn a torch model into a task bundle that devices can train without torch."""
    folder = find_recipe(recipe)
    with lasting_imports():
        import torch  # noqa: PLC0415 - it takes seconds to import

        from workbench.export.bundle_writer import export_bundle  # noqa: PLC0415 - imports torch
        from workbench.inspection.trial_round import try_round  # noqa: PLC0415

    torch.set_num_threads(1)  # threads that wait for one another take half of a small model's export
    description = export_bundle(folder, out, ort_training, data=data, weights=weights)
    total = sum(path.stat().st_size for path in out.iterdir() if path.name in {*description.files, "task.json"})
    print(f"{out}: task {description.task}, {description.parameter_count} parameters, {total / 1000:.1f} kB")
    if (unsteady := try_round(out, description, None).unsteady) is not None:
        print(f"edgeflock: a round on inputs spread over [input] of task.toml: {unsteady}", file=sys.stderr)


@app.command()
def inspect(
    bundle: Annotated[Path, _argument("FOLDER", "Folder of a task bundle.")],
    data: Annotated[Path | None, _option("FILE", "Samples to try a round on, instead of drawn ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Say what a bundle is, what it needs of each kind of device, and whether all of it runs there."""
    from rich.console import Console  # noqa: PLC0415 - only tables need it

    from workbench.inspection.bundle_inspection import inspect_bundle  # noqa: PLC0415 - onnx takes a second to import
    from workbench.inspection.bundle_tables import print_inspection  # noqa: PLC0415

    inspection = inspect_bundle(bundle, data)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(inspection), indent=2).decode())
    else:
        print_inspection(inspection, Console())


@app.command()
def prepare(
    task: Annotated[str, _argument("TASK", "Name of a shipped recipe, or folder of a bundle.")],
    readings: Annotated[Path, _argument("FILE", "Table of named readings, .csv or .jsonl, a reading a row.")],
    out: Annotated[Path, _option("FILE", "File for the samples, .npz.")],
    column: Annotated[
        list[str] | None, _option("FIELD=COLUMN", "A column with another name than its field, time or id.")
    ] = None,
) -> None:
    """Make samples of named readings, as a device makes them."""
    from workbench.data.named_readings import write_samples  # noqa: PLC0415 - numpy takes a while to import

    print(write_samples(readings, find_bundle(task), out, _columns(column or [])))


def _columns(given: list[str]) -> dict[str, str]:
    if wrong := next((each for each in given if "=" not in each), None):
        raise ConfigurationError(f"--column {wrong}: write FIELD=COLUMN, such as temperature=Temp")
    return {field: column for field, _, column in (each.partition("=") for each in given)}


@app.command()
def demo(
    *,
    agents: Annotated[
        int | None,
        _option(
            "N",
            "How many agents, each a process of its own: 8, with --split or --gan 6, with --data-dir a speaker each.",
            min=1,
            max=64,
        ),
    ] = None,
    seed: Annotated[int, _option("N", "Fixes who gets which samples, and how fast.", min=0, max=MAX_SEQUENCE)] = 0,
    out: Annotated[Path, _option("FOLDER", "Folder for everything that the fleet and the demo write.")] = Path(
        "demo-run"
    ),
    broker: Annotated[str, _option("BROKER", "auto, mosquitto, embedded, or HOST:PORT of one that runs.")] = "auto",
    split: Annotated[
        bool, typer.Option("--split", help="Every second device is weak, and leaves blocks of the model to a helper.")
    ] = False,
    gan: Annotated[
        bool,
        typer.Option("--gan", help="Weak devices with digits or letters train generators of them; takes five minutes."),
    ] = False,
    speech: Annotated[
        bool, typer.Option("--speech", help="Each device has one speaker's words, and says once what it has learned.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        _option("FOLDER", "For --speech: recordings of ten words, WORD_SPEAKER_TAKE.wav, not those of espeak-ng."),
    ] = None,
    privacy: Annotated[Mode | None, typer.Option(help=PRIVACY_HELP)] = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="Open no pages for a browser.")] = False,
) -> None:
    """Watch a fleet learn handwritten digits on this machine, in under a minute."""
    from workbench.demo.demo_kind import chosen  # noqa: PLC0415 - numpy and scikit-learn take a second to import
    from workbench.demo.show import show_demo  # noqa: PLC0415

    kind, usual_agents = chosen(split=split, speech=speech, gan=gan, recordings=data_dir, privacy=privacy)
    show_demo(agents or usual_agents, seed, out, broker, kind, has_dashboard=not no_dashboard)


@app.command()
def decode(
    file: Annotated[str, _argument("FILE", "A captured message, as it is or in hex; - for standard input.")],
    *,
    topic: Annotated[str | None, _option("TOPIC", "The topic on which it was captured.")] = None,
    key: Annotated[str | None, _option("KEY", "The sender's public key, 64 hex digits.")] = None,
    database: Annotated[Path | None, _option("FILE", "The coordinator's database, for its devices' keys.")] = None,
    config: Annotated[Path | None, _option("FILE", "coordinator.toml: its database, key and bundles.")] = None,
    coordinator_key_file: Annotated[
        Path | None, _option("FILE", "The coordinator's private key file, to open encrypted updates.")
    ] = None,
    bundle: Annotated[Path | None, _option("FOLDER", "The task's bundle, for the shapes of its tensors.")] = None,
) -> None:
    """Show what a message says: sender, kind, base version, packing, and whether its signature is valid.

    Ends with code 1 where a check that could be made has failed.
    """
    from workbench.inspection.coordinator_files import (  # noqa: PLC0415 - needs SQLAlchemy
        context_of_coordinator,
        private_keys,
        registered_devices,
    )
    from workbench.inspection.decode import DecodingContext, describe, message_bytes, parse_key  # noqa: PLC0415 - export does without numpy

    context = context_of_coordinator(config) if config else DecodingContext()
    context = DecodingContext(
        topic=topic,
        key=parse_key(key) if key else None,
        devices=registered_devices(database) if database else context.devices,
        coordinator=private_keys(coordinator_key_file) if coordinator_key_file else context.coordinator,
        tasks=[parse_description(_read(bundle / DESCRIPTION_FILE))] if bundle else context.tasks,
    )
    captured = sys.stdin.buffer.read() if file == "-" else _read(Path(file))
    described = describe(message_bytes(captured, file), context, file)
    for label, words in described.lines:
        print(f"{label:20}{words}")
    raise typer.Exit(code=int(described.refuted))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, 'name a file that exists')}") from error


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def helper(context: typer.Context) -> None:
    """Run blocks of models for devices that are too weak for them; has commands of its own."""
    from session_relay.helper.cli import main as run_helper  # noqa: PLC0415 - no other command needs it

    run_helper(context.args)


def main() -> None:
    """Run `edgeflock`. An error that the operator can correct is one line on stderr and exit code 2."""
    try:
        with missing_extra_named(PROGRAM):
            app(prog_name=PROGRAM)
    except (ConfigurationError, ProtocolError) as error:
        write_error(PROGRAM, error)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
