"""What a card is to become: the answers of `edgeflock flash`, checked. Pure."""

import hashlib
import re
from collections.abc import Iterator

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.device_invitation import read_invitation
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import KIB

LONGEST_SSID = 32
"""Bytes: IEEE 802.11."""
MAX_SSH_KEY_CHARACTERS = 64 * KIB
"""Of all public keys: some hundred. cloud-init's files are read whole at every boot."""
MAX_PACKAGE_CHARACTERS = 4096
MAX_SHOWN_CHARACTERS = 80
"""Of a value, in an error."""
PASSPHRASE_ITERATIONS = 4096
"""Of PBKDF2 with SHA-1, and the bytes of the key that it makes: IEEE 802.11, annex J.4."""
KEY_BYTES = 32

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
_PASSPHRASE = re.compile(r"[ -~]{8,63}")
_RAW_KEY = re.compile(r"[0-9a-fA-F]{64}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_PASSWORD_HASH = re.compile(r"\$[0-9a-z]+\$[./A-Za-z0-9$,=]{8,200}")
_PUBLIC_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\n\r]*)?")
NO_PASSWORD = "*"  # noqa: S105 - what /etc/shadow has where no password is right


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One card. Wi-Fi, user and SSH keys may be left out."""

    name: Name
    """The device's name; its host name too, with - for _."""
    profile: str
    """One that edgeflock ships."""
    invitation: str
    """The line that `broker-coordinator devices invite` printed."""
    wifi_name: str = ""
    wifi_passphrase: str = ""
    """8 to 63 characters, or the 64 hex digits of the key. The card gets the key alone."""
    country: str = ""
    """Two capital letters: which channels Wi-Fi may use."""
    user: str = ""
    """The account to log in with; without, Raspberry Pi OS asks for one on its screen."""
    password_hash: str = ""
    """What `openssl passwd -6` prints; without, the account has no password."""
    ssh_key: str = ""
    """The content of a public key file, whose owner may log in."""
    package: str = ""
    """What is installed there: a requirement such as edgeflock==0.1.0, or the path of a wheel or of the agent's Debian
    package, which the card carries."""
    offline: bool = False
    """The card carries every package."""

    def __post_init__(self) -> None:
        """Refuse what a device could not be made of; raises ValueError."""
        for fault in (*_faults_of_device(self), *_faults_of_wifi(self), *_faults_of_account(self)):
            raise ValueError(fault)

    @property
    def host_name(self) -> str:
        """The device's name as a host may have it."""
        return self.name.replace("_", "-")

    @property
    def ssh_keys(self) -> list[str]:
        """One a line."""
        return [line.strip() for line in self.ssh_key.splitlines() if line.strip()]

    @property
    def wifi_key(self) -> str:
        """The pre-shared key, 64 hex digits, as wpa_passphrase makes it."""
        if _RAW_KEY.fullmatch(self.wifi_passphrase):
            return self.wifi_passphrase.lower()
        name, passphrase = self.wifi_name.encode(), self.wifi_passphrase.encode()
        return hashlib.pbkdf2_hmac("sha1", passphrase, name, PASSPHRASE_ITERATIONS, KEY_BYTES).hex()


def _faults_of_device(order: Order) -> Iterator[str]:
    if not _HOST_NAME.fullmatch(order.name):
        yield f"name {order.name!r} can't be a host name; begin and end it with a-z or 0-9"
    if len(order.package) > MAX_PACKAGE_CHARACTERS:
        yield f"package {_shown(order.package)}: over {MAX_PACKAGE_CHARACTERS} characters; name a wheel or requirement"
    try:
        invited = read_invitation(order.invitation).device
    except ConfigurationError as error:
        yield str(error)
        return
    if invited != order.name:
        yield f"the invitation is for {invited}, and the card for {order.name}; give both one name"


def _faults_of_wifi(order: Order) -> Iterator[str]:
    name, passphrase, country = order.wifi_name, order.wifi_passphrase, order.country
    if (name or country) and not _COUNTRY.fullmatch(country):
        yield f"country {_shown(country)} is none, and Wi-Fi needs one; give its two capital letters, such as DE"
    if not name:
        if passphrase:
            yield "a Wi-Fi passphrase without the Wi-Fi's name; give both"
        return
    if not name.isprintable() or len(name.encode()) > LONGEST_SSID:
        yield f"the Wi-Fi's name {_shown(name)} is none: at most {LONGEST_SSID} bytes that can be printed; check it"
    if not (_PASSPHRASE.fullmatch(passphrase) or _RAW_KEY.fullmatch(passphrase)):
        yield "the Wi-Fi's passphrase is none: 8 to 63 characters of ASCII, or the 64 hex digits of a key; check it"


def _faults_of_account(order: Order) -> Iterator[str]:
    user, password_hash = order.user, order.password_hash
    if not user:
        if password_hash or order.ssh_key:
            yield "an SSH key or a password without a user; name the account that it is for"
        return
    if not _USER.fullmatch(user) or user == "root":
        yield f"user {_shown(user)} can't be an account's name; use a-z, 0-9, - and _, and not root"
    if not (order.ssh_key or password_hash):
        yield f"user {user} could not log in; give an SSH key or the hash of a password"
    if len(order.ssh_key) > MAX_SSH_KEY_CHARACTERS:
        yield f"the SSH keys have over {MAX_SSH_KEY_CHARACTERS} characters, the limit; name a file with public keys"
    elif not all(map(_PUBLIC_KEY.fullmatch, order.ssh_keys)):
        yield "the SSH key is no public key; name a file such as id_ed25519.pub"
    if password_hash and not _PASSWORD_HASH.fullmatch(password_hash):
        yield "the password's hash is none; make one with: openssl passwd -6"


def _shown(value: str) -> str:
    return repr(value[:MAX_SHOWN_CHARACTERS])
