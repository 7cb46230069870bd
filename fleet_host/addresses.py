"""What a host that somebody names is: an address, and whether it is this machine's own."""

import ipaddress


def is_address(host: str) -> bool:
    """Whether it is meant as an IP address."""
    return ":" in host or not host.strip("0123456789.")


def is_loopback(host: str) -> bool:
    """Whether this machine alone reaches itself by it.

    Raises:
        ValueError: it is meant as an address, and is none.
    """
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
