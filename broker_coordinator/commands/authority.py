"""`broker-coordinator authority show | renew | switch | drop`: another authority in three steps, without visits."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from broker_coordinator.commands.authority_sets import replace_authorities, require_room, was_believed, write_in_place
from broker_coordinator.commands.broker_setup import BrokerPlan, unwritable
from broker_coordinator.commands.certificates import (
    certificate_days_left,
    is_issued_by,
    make_authority,
)
from broker_coordinator.commands.output import add_noun, write_fields
from broker_coordinator.commands.places import NEXT_AUTHORITY, ServerPlaces, server_places
from broker_coordinator.commands.systemd_units import BROKER_UNIT, restart_or_say
from broker_coordinator.configuration import PROGRAM, CoordinatorConfiguration, load_configuration
from fleet_host.certificates import counts, days_left, fingerprint, read_authorities
from fleet_host.command_line import Verbs
from fleet_host.program_folder import AUTHORITY
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_AUTHORITIES


@dataclass(frozen=True, slots=True)
class _Server:
    """What the verbs work on. `trusted` is the file of the certificates that are believed now."""

    places: ServerPlaces
    plan: BrokerPlan
    trusted: Path
    starts: bool

    @property
    def next(self) -> Path:
        return self.places.next_authority

    @property
    def before(self) -> Path:
        """Where the authority's folder goes when the next one takes its place."""
        return self.places.authority.with_name(self.places.authority.name + ".before")


def add_parser(nouns: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The noun and its verbs."""
    verb = add_noun(
        nouns, "authority", "Show the broker's authority for certificates, or let another follow it.", *parents
    )
    verbs = (
        verb("show", "Show which authorities are believed, and how long certificates count."),
        verb("renew", "Make the next authority, and let devices believe both."),
        verb("switch", "Give the broker a certificate of the next authority."),
        verb("drop", "Let devices believe the present authority alone."),
    )
    for each in verbs:
        each.add_argument("--folder", type=Path, metavar="DIR", help="the one folder that `setup --folder` has filled")


def run(options: argparse.Namespace) -> None:
    """Do it.

    Raises:
        ConfigurationError: it can't be done now; what comes first.
    """
    places = server_places(options.config, options.folder)
    server = _server(places, load_configuration(places.configuration), starts=options.folder is None)
    try:
        _VERBS[options.action](server, options)
    except BrokenPipeError:  # of the output, which is read no further
        raise
    except OSError as error:
        raise unwritable(error, places.authority) from error


def _server(places: ServerPlaces, configuration: CoordinatorConfiguration, *, starts: bool) -> _Server:
    settings, tls = configuration.invitations, configuration.broker.tls
    if configuration.broker_accounts is None or settings is None or tls is None:
        raise ConfigurationError(
            f"{places.configuration} is for a broker that somebody else runs, and so are its certificates"
            " (systemd/mosquitto/certificates.sh)"
        )
    plan = BrokerPlan(settings.host, settings.port, places.broker, places.broker_state, places.authority, None)
    return _Server(places, plan, tls.authority, starts)


def _show(server: _Server, options: argparse.Namespace) -> None:
    now = time.time()
    believed = [
        {"fingerprint": fingerprint(each).hex(), "days_left": int(days_left(each, now))}
        for each in read_authorities(server.trusted)
    ]
    broker = server.places.broker / "broker.crt"
    row = {
        "broker_days_left": int(certificate_days_left(broker, now)) if broker.exists() else None,
        "next": (server.next / AUTHORITY).exists(),
        "believed": believed,
    }
    write_fields(row, as_json=options.json)


def _renew(server: _Server, options: argparse.Namespace) -> None:
    _finish_switch(server)
    believed = read_authorities(server.trusted)
    require_room([*believed, b""], MAX_AUTHORITIES)
    if not (server.next / "ca.key").exists():
        _require_dropped(server, believed)
        server.places.authority.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_authority(server.next)
    (made,) = read_authorities(server.next / AUTHORITY)
    if made not in believed:
        replace_authorities(server.trusted, [*believed, made])
    _say(options, server, [PROGRAM], "devices then hear of it when they connect; once all have: authority switch")


def _require_dropped(server: _Server, believed: list[bytes]) -> None:
    """Devices that were invited since the last `switch` believe the first alone, and hear only of what follows that."""
    if len(believed) > 1 and not was_believed(server.trusted, believed[:1]):
        raise ConfigurationError("the former authority is believed still; first: authority drop")


def _switch(server: _Server, options: argparse.Namespace) -> None:
    _finish_switch(server)
    believed = read_authorities(server.trusted)
    if (server.next / AUTHORITY).exists():
        _put_next_in_place(server, believed)
    (present,) = read_authorities(server.places.authority / AUTHORITY)
    if present not in believed or believed == [present]:
        raise ConfigurationError(f"there is no next authority in {server.next}; first: authority renew")
    for step in server.plan.certificate_steps():
        if step.do is not None:
            step.do()
    write_in_place(server.trusted, [present, *(each for each in believed if each != present)])
    words = "devices that trust the former authority alone can't connect any more; if none is left: authority drop"
    _say(options, server, [BROKER_UNIT, PROGRAM], words)


def _put_next_in_place(server: _Server, believed: list[bytes]) -> None:
    (made,) = read_authorities(server.next / AUTHORITY)
    if made not in believed:
        raise ConfigurationError(f"{server.next / AUTHORITY} was never announced to devices; first: authority renew")
    if not counts(made, time.time()):
        raise ConfigurationError(
            f"{server.next / AUTHORITY} does not count at {time.strftime('%Y-%m-%d %H:%M')}, so that"
            f" devices would refuse the broker; if the clock was wrong when it was made: remove {server.next}, and"
            " authority renew"
        )
    if server.before.exists():
        raise ConfigurationError(f"{server.before} is of the change before this one; keep it elsewhere, or delete it")
    server.places.authority.rename(server.before)
    _finish_switch(server)


def _finish_switch(server: _Server) -> None:
    """Put the next authority's folder in the place of one that has gone: again, where that was interrupted."""
    if not server.places.authority.exists() and (server.before / NEXT_AUTHORITY).exists():
        (server.before / NEXT_AUTHORITY).rename(server.places.authority)


def _drop(server: _Server, options: argparse.Namespace) -> None:
    _finish_switch(server)
    (present,) = read_authorities(server.places.authority / AUTHORITY)
    believed = read_authorities(server.trusted)
    if believed == [present]:
        raise ConfigurationError("one authority is believed, and it is the present one: there is nothing to drop")
    if (server.next / AUTHORITY).exists():
        raise ConfigurationError("the broker still has a certificate of the former authority; first: authority switch")
    if present not in believed or not is_issued_by(server.places.broker / "broker.crt", server.places.authority):
        raise ConfigurationError(
            f"the broker's certificate in {server.places.broker} is not of the authority in {server.places.authority},"
            " and devices would refuse it; run: authority switch, or setup --host"
        )
    replace_authorities(server.trusted, [present])
    _say(options, server, [PROGRAM], f"keep a copy of {server.places.authority}, and make a new backup")


def _say(options: argparse.Namespace, server: _Server, units: list[str], words: str) -> None:
    restarted = restart_or_say(units, starts=server.starts)
    if options.json:
        write_fields({"restarted": restarted, "then": words}, as_json=True)
    else:
        sys.stdout.write(f"{restarted}\n{words}\n")


_VERBS: Mapping[str, Callable[[_Server, argparse.Namespace], None]] = {
    "show": _show,
    "renew": _renew,
    "switch": _switch,
    "drop": _drop,
}
