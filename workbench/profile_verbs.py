"""`edgeflock profiles`: the kinds of device there are, what one says, whether a file is one, and this machine's."""

import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge_agent.profiles import Profile, profile_file, read_profile, shipped_profiles
from edge_agent.verbs.measure import as_toml, measure

profiles = typer.Typer(no_args_is_help=True, help="Kinds of device, and what an agent may take of each.")

Site = Annotated[Path | None, typer.Option(metavar="FILE", help="site.toml, whose limits go over the profile's.")]

NAMED = "The name of a shipped profile, or a file."


@profiles.command("list")
def list_profiles(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Show the kinds of device that edgeflock ships."""
    found = {name: read_profile(name) for name in shipped_profiles()}
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    width = max(map(len, found))
    for name, profile in found.items():
        print(f"{name:{width}}  {_summary(profile)}")


@profiles.command()
def show(profile: Annotated[str, typer.Argument(metavar="PROFILE", help=NAMED)], site: Site = None) -> None:
    """Print a profile with all that it inherits."""
    sys.stdout.write(as_toml(read_profile(profile, site)))


@profiles.command()
def check(files: Annotated[list[str], typer.Argument(metavar="PROFILE...", help=NAMED)], site: Site = None) -> None:
    """Say whether profiles are complete and don't contradict themselves."""
    for name in files:
        print(f"{profile_file(name)}: {_summary(read_profile(name, site))}")


@profiles.command("measure")
def measure_machine(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File for the profile; it must not exist.")] = None,
) -> None:
    """Write a profile of this machine, within a minute."""
    measure(out, date.today().isoformat(), sys.stdout.write)


def _summary(profile: Profile) -> str:
    device, worker = profile.device, profile.worker
    return (
        f"{device.cores} cores, {device.memory_mib} MiB; worker: {worker.threads} threads,"
        f" {worker.memory_limit_mib} MiB; {device.name}"
    )
