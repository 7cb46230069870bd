"""Which kinds of source there are: those that ship, and those that other packages install as entry points."""

from collections.abc import Mapping
from importlib.metadata import entry_points

from edge_agent.sources.folder import FOLDER_SOURCE
from edge_agent.sources.mqtt_topic import MQTT_SOURCE
from edge_agent.sources.source import SourceKind, SourcePlugin
from fleet_protocol.errors import ConfigurationError

ENTRY_POINTS = "edgeflock.sources"
"""The group in which a package names its `SourcePlugin`s."""

SHIPPED: Mapping[str, SourceKind] = {"folder": FOLDER_SOURCE, "mqtt": MQTT_SOURCE}


def find_plugin(kind: str) -> SourceKind:
    """The source of this name.

    Raises:
        ConfigurationError: there is none, or its package can't be imported.
    """
    if kind in SHIPPED:
        return SHIPPED[kind]
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if kind not in installed:
        known = ", ".join(sorted({*SHIPPED, *installed}))
        raise ConfigurationError(
            f"sources: kind {kind!r} is not installed; there are {known}: choose one, or install its package"
        )
    try:
        plugin = installed[kind].load()
    except Exception as error:  # another's package may raise anything
        raise ConfigurationError(f"sources: {kind!r} can't be loaded: {error}; install its package again") from error
    if not isinstance(plugin, SourcePlugin):
        raise ConfigurationError(f"sources: {installed[kind].value} is no SourcePlugin; update the package of {kind!r}")
    return plugin
