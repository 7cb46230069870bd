"""What `setup --host` takes: a name or an address by which other machines reach this one."""

import ipaddress
import socket

import msgspec

from fleet_host.addresses import is_address
from fleet_host.broker_settings import HOST_FORM, Host
from fleet_protocol.errors import ConfigurationError

MAX_SHOWN_CHARACTERS = 80
"""Of what was given, in an error."""


def check_host(host: str) -> None:
    """Refuse what devices can't reach this server by.

    Raises:
        ConfigurationError: what is wrong with it, and what to name.
    """
    try:
        msgspec.convert(host, Host)
    except msgspec.ValidationError:
        raise _refused(host, f"not {HOST_FORM}") from None
    if is_address(host):
        _check_address(host)
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        raise _refused(host, str(error)) from error


def _check_address(host: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise _refused(host, "not a whole IP address") from None
    if address.is_unspecified or address.is_multicast or "%" in host:
        raise _refused(host, "an address that no other machine reaches this one by")


def _refused(host: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"--host {host[:MAX_SHOWN_CHARACTERS]}: {why}; name what devices reach this server by: a name that DNS or mDNS"
        f" knows (such as {socket.gethostname()}.local), or an address that stays the same"
    )
