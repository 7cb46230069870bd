"""What a device needs for its account at a broker whose accounts the coordinator makes."""

from pathlib import Path

from fleet_host.key_files import make_key_file, read_key_file
from fleet_host.new_files import replace_file
from fleet_host.program_folder import AUTHORITY, FILE_MODE, PASSWORD_FILE, quoted
from fleet_protocol.broker_accounts import account_name, own_password
from fleet_protocol.keys import SigningKey, VerifyKey

KEY_FILE = "agent.key"
BROKER = """\
[broker]
host = {host}
port = {port}
username = {username}
password_file = "{password_file}"

[broker.tls]
authority = "{authority}"
"""


def account_table(host: str, port: int, device: str, key: VerifyKey) -> str:
    """The table `[broker]` of agent.toml, for the account of this key of the device."""
    account = quoted(account_name(device, key))
    return BROKER.format(
        host=quoted(host), port=port, username=account, password_file=PASSWORD_FILE, authority=AUTHORITY
    )


def own_key(path: Path, program: str) -> SigningKey:
    """The device's key, which is made where there is none.

    Raises:
        ConfigurationError: it can't be read or made.
    """
    if not path.exists():
        make_key_file(path, program)
    return read_key_file(path, program)


def write_password(folder: Path, key: SigningKey, coordinator: VerifyKey) -> None:
    """Write the password that follows from both keys.

    Raises:
        OSError: it can't be written.
        ConfigurationError: the coordinator's key is no key.
    """
    replace_file(folder / PASSWORD_FILE, own_password(key, coordinator).encode() + b"\n", FILE_MODE)
