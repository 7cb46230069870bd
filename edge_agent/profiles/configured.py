"""An agent's configuration with the limits of its profile and of its site where it has none of its own."""

from pathlib import Path

import msgspec

from edge_agent.profiles.files import PROFILE_ENDING, Table, limits_of_site, merged, read_profile
from edge_agent.profiles.profile import Limits

SITE_FILE = "site.toml"
"""Beside agent.toml."""


def completed_by_profile(document: Table, folder: Path) -> Table:
    """`document`, an agent.toml in `folder`, over the limits of the site's file there, over those of its profile.

    A task without a trigger gets the one of the site or the profile, whole.

    Raises:
        ConfigurationError: there is no such profile, or a file is wrong; the message names it.
    """
    document = _with_profile_located(document, folder)
    limits = _limits(document, folder)
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
    if isinstance(profile, str) and profile.endswith(PROFILE_ENDING):
        return {**document, "profile": str(folder / profile)}
    return document


def _limits(document: Table, folder: Path) -> Limits | None:
    """Of the profile, of the site, or of both; None where neither is there."""
    profile = document.get("profile")
    site = folder / SITE_FILE if (folder / SITE_FILE).exists() else None
    if isinstance(profile, str):
        return read_profile(profile, site).limits
    return limits_of_site(site) if site else None
