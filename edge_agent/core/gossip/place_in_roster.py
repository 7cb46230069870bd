"""Whether a device has a part in a task that is learned without a coordinator, and among whom. Pure."""

from edge_agent.core.gossip.neighbours import Neighbours
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Roster

NO_ROSTER = "no roster has come yet, which says who learns it; the coordinator publishes it when it runs"


def is_newer(known: Roster | None, roster: Roster) -> bool:
    """Whether a verified roster takes the place of the one that is known."""
    return known is None or (roster.generation, roster.number) > (known.generation, known.number)


def why_no_part(roster: Roster | None, device: str, public_key: bytes, bundle: str) -> str | None:
    """Why this device trains nothing of a task with that bundle, in words, with what to do; None where it does."""
    if roster is None:
        return NO_ROSTER
    if roster.bundle != bundle:
        return f"the roster is of bundle {roster.bundle[:16]}, and the manifest's is {bundle[:16]}; waits for the other"
    member = next((each for each in roster.members if each.name == device), None)
    if member is None:
        return (
            f"this device is not in the roster of {len(roster.members)} devices; on the server: broker-coordinator"
            f" devices approve {device}"
        )
    if member.public_key != public_key:
        return (
            f"the roster has another key for {device}; a second device has its name, or its key was renewed: on the"
            " server: broker-coordinator devices list"
        )
    try:
        neighbours_in(roster, device)
    except ConfigurationError as error:
        return str(error)
    return None


def neighbours_in(roster: Roster, device: str) -> Neighbours:
    """Those of a device that is in the roster.

    Raises:
        ConfigurationError: too few devices for the topology.
    """
    return Neighbours.of(device, roster.topology, [each.name for each in roster.members], roster.seed)
