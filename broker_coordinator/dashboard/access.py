"""Who may ask for what: every request is let in or refused here. Pure; docs/dashboard.md says why."""

import hashlib
import hmac
from collections.abc import Container, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from broker_coordinator.dashboard.sessions import is_session
from fleet_host.addresses import is_address
from fleet_protocol.printable import printable

MAX_VISITOR_CHARACTERS: Final = 100
"""Of a name that a proxy gives."""
MAX_COOKIE_CHARACTERS: Final = 4096
"""Of all cookies of a request; ours takes 110."""
LOGIN: Final = "/api/login"
ONLY_SHOWS: Final = (
    "these pages only show: use the commands of broker-coordinator, or run it with a token_file in [dashboard] of"
    " coordinator.toml"
)
OPEN_READS: Final = ("/", "/static/")
"""Pages without data: whoever reaches the port has them from the package anyway."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What the configuration says: the `token` that must be known, the header in which one of `proxies` says who asks,
    the names of this server beside its addresses, and the port, of which the cookie is. `looks_only`: nobody may
    change anything.
    """

    token: str | None = None
    user_header: str | None = None
    proxies: Sequence[str] = ()
    hosts: Sequence[str] = ()
    port: int = 0
    looks_only: bool = False

    @property
    def cookie(self) -> str:
        """The name of the session's cookie: browsers tell ports of one host apart by nothing else."""
        return f"edgeflock-{self.port}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as far as access depends on it. Headers that are missing are None."""

    method: str
    path: str
    peer: str
    """The address that the connection comes from."""
    hosts: Sequence[str] = ()
    """Every `Host` header: there must be one."""
    origin: str | None = None
    fetch_site: str | None = None
    content_type: str | None = None
    authorization: str | None = None
    cookies: str | None = None
    user: str | None = None
    """What `user_header` says."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, for the log; and whether changes are allowed, and the model's weights given out."""

    name: str
    address: str
    may_change: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP status, and why, in words for whoever asks."""

    status: int
    words: str


def admit(asked: Asked, doors: Doors, now: float, ended: Container[str] = frozenset()) -> Visitor | Refusal:
    """Let a request in, or refuse it. `now` is in seconds since 1970, `ended` are sessions that count no longer."""
    refusal = _of_host(asked, doors) or _of_method(asked) or _of_other_sites(asked)
    if refusal is not None:
        return refusal
    visitor = _visitor(asked, doors, now, ended)
    if isinstance(visitor, Refusal):
        is_open = asked.method != "POST" and any(_is_below(asked.path, each) for each in OPEN_READS)
        return Visitor("", asked.peer) if is_open or asked.path == LOGIN else visitor
    if asked.method == "POST" and not visitor.may_change and asked.path != LOGIN:
        return Refusal(403, ONLY_SHOWS)
    return visitor


def is_token(given: str, token: str) -> bool:
    """Whether it is the token, in a time that does not depend on where they differ."""
    first, second = (hashlib.sha256(each.encode(errors="replace")).digest() for each in (given, token))
    return hmac.compare_digest(first, second)


def _of_host(asked: Asked, doors: Doors) -> Refusal | None:
    """A page of another site whose name was made to mean this machine (DNS rebinding) asks under that name."""
    if len(asked.hosts) != 1:
        return Refusal(400, f"{len(asked.hosts)} Host headers; send one")
    host = _host_of(asked.hosts[0])
    if host in {"localhost", *(each.lower() for each in doors.hosts)} or (host and is_address(host)):
        return None
    shown = printable(asked.hosts[0][:MAX_VISITOR_CHARACTERS])
    return Refusal(421, f"host {shown!r} is not known here; add it to `hosts` in [dashboard] of coordinator.toml")


def _of_method(asked: Asked) -> Refusal | None:
    if asked.method not in {"GET", "HEAD", "POST"}:
        return Refusal(405, "only GET, HEAD and POST are understood")
    return None


def _of_other_sites(asked: Asked) -> Refusal | None:
    """A change that another site's page has a browser send; also what such a page could send without asking first."""
    if asked.method != "POST":
        return None
    if asked.fetch_site not in {None, "same-origin"}:
        return Refusal(403, "another site has sent this; use the dashboard's own pages")
    if asked.origin is not None and _origin_host(asked.origin) != asked.hosts[0].lower():
        return Refusal(403, "another origin has sent this; use the dashboard's own pages")
    if (asked.content_type or "").partition(";")[0].strip().lower() != "application/json":
        return Refusal(415, "send the content type application/json")
    return None


def _visitor(asked: Asked, doors: Doors, now: float, ended: Container[str]) -> Visitor | Refusal:
    if doors.token is not None:
        if _shows_token(asked, doors, doors.token, now, ended):
            return Visitor(_said(asked) or "who has the token", asked.peer, not doors.looks_only)
        return Refusal(401, "log in with the token of [dashboard] token_file, or send: Authorization: Bearer TOKEN")
    if doors.user_header is not None:
        if asked.peer not in doors.proxies:
            return Refusal(403, f"{asked.peer} is none of `proxies` in [dashboard] of coordinator.toml")
        name = _said(asked)
        return (
            Visitor(name, asked.peer, not doors.looks_only) if name else Refusal(401, "the proxy does not say who asks")
        )
    return Visitor("", asked.peer)


def _shows_token(asked: Asked, doors: Doors, token: str, now: float, ended: Container[str]) -> bool:
    scheme, _, given = (asked.authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return is_token(given.strip(), token)
    session = session_of(asked.cookies or "", doors)
    return session is not None and session not in ended and is_session(session, token, now)


def session_of(header: str, doors: Doors) -> str | None:
    """What a `Cookie` header says of the session, if anything."""
    if len(header) > MAX_COOKIE_CHARACTERS:
        return None
    try:
        found = SimpleCookie(header).get(doors.cookie)
    except CookieError:
        return None
    return found.value if found else None


def _said(asked: Asked) -> str:
    return printable((asked.user or "").strip()[:MAX_VISITOR_CHARACTERS])


def _host_of(header: str) -> str:
    """A `Host` header without its port, and an IPv6 address without brackets; empty where it is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _origin_host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_below(path: str, place: str) -> bool:
    return path.startswith(place) if place != "/" else path == "/"
