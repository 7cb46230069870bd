"""An agent's configuration with the limits of its profile and of its site where it has none of its own."""

from pathlib import Path

import msgspec

from edge_agent.profiles.files import Table, limits_of_site, merged, names_a_file, read_profile
from edge_agent.profiles.profile import Limits
from fleet_protocol.errors import ConfigurationError

SITE_FILE = "site.toml"
"""Beside agent.toml."""


def completed_by_profile(document: Table, path: Path) -> Table:
    """`document`, the agent.toml at `path`, over the limits of the site's file there, over those of its profile.

    A task without a trigger gets the one of the site or the profile, whole.

    Raises:
        ConfigurationError: there is no such profile, or a file is wrong; the message names it.
    """
    document = _with_profile_located(document, path.parent)
    limits = _limits(document, path)
    if limits is None:
        return document
    tables: Table = msgspec.to_builtins(limits)
    trigger = tables.pop("trigger")
    tasks = document.get("tasks")
    if isinstance(tasks, list):
        tasks = [{"trigger": trigger, **task} if isinstance(task, dict) else task for task in tasks]
        document = {**document, "tasks": tasks}
    return merged(tables, document)


def _with_profile_located(document: Table, folder: Path) -> Table:
    """The path of a profile starts at the folder that agent.toml is in."""
    profile = document.get("profile")
    if isinstance(profile, str) and names_a_file(profile):
        return {**document, "profile": str(folder / profile)}
    return document


def _limits(document: Table, path: Path) -> Limits | None:
    """Of the profile, of the site, or of both; None where neither is there."""
    profile = document.get("profile")
    site = path.parent / SITE_FILE
    if not isinstance(profile, str):
        return limits_of_site(site) if site.exists() else None
    try:
        limits = read_profile(profile).limits
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: `profile`: {error}") from error
    return read_profile(profile, site).limits if site.exists() else limits
