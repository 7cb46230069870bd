"""The packages that a card carries: a Debian package, or wheels for the Python of its system, on aarch64."""

import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec

from fleet_host.command_line import DISTRIBUTION
from fleet_protocol.errors import ConfigurationError, why_unreadable
from workbench.flashing.card_files import Files, System
from workbench.flashing.order import Order

PYTHON = {System.CLOUD_INIT: "3.13", System.FIRST_RUN: "3.11"}
"""Of Debian 13 and 12."""
DEBIAN = {System.CLOUD_INIT: "trixie", System.FIRST_RUN: "bookworm"}
NEWEST_GLIBC_MINOR = 36
"""Of Debian 12; wheels for older ones work too, the oldest that are made being for 2.17."""
OLDEST_GLIBC_MINOR = 17
DOWNLOAD_SECONDS = 600.0

_WHEEL = re.compile(r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.+!]+)-[^/]+\.whl")
_DEB = re.compile(r"edgeflock-agent_[A-Za-z0-9.+~-]+\+deb([0-9]+)_([a-z0-9]+)\.deb")
_AR = b"!<arch>\n"
_AR_HEADER_BYTES = 60
_AR_SIZE = slice(48, 58)
"""Of a member's header, in decimal digits."""
_RELEASES = {"12": "bookworm", "13": "trixie"}
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,_-]+\])?([=<>!~]=?[A-Za-z0-9.*+!]+)?")


def with_package(order: Order) -> Order:
    """The order with what pip or apt is told: this release of edgeflock where it names nothing.

    Raises:
        ConfigurationError: the package is neither a requirement, nor a wheel, nor the agent's Debian package.
    """
    package = order.package or f"{DISTRIBUTION}=={version(DISTRIBUTION)}"
    if package.endswith(".whl"):
        if not (named := _WHEEL.fullmatch(Path(package).name)):
            raise ConfigurationError(f"package {package}: no name of a wheel; build one: pip wheel --no-deps .")
        package = f"{named[1]}=={named[2]}"
    elif package.endswith(".deb"):
        package = Path(package).name
        if not _DEB.fullmatch(package):
            raise ConfigurationError(f"package {package}: not the agent's; build it: make deb ARCH=arm64")
    elif not _REQUIREMENT.fullmatch(package):
        raise ConfigurationError(f"package {package!r}: no requirement; write one such as {DISTRIBUTION}==0.1.0")
    return msgspec.structs.replace(order, package=package)


def carried(package: str, order: Order, system: System) -> Files:
    """Packages by their name: the one that `package` is the path of, and with `offline` the wheels that it needs.

    Raises:
        ConfigurationError: the package can't be read or is for another system, or pip can't get one for aarch64.
    """
    if package.endswith(".deb"):
        _check_system(Path(package).name, system)
        return {Path(package).name: _read(Path(package), _is_whole_deb, "make deb ARCH=arm64")}
    wheel = package.endswith(".whl")
    files = {Path(package).name: _read(Path(package), _is_whole_wheel, "pip wheel --no-deps .")} if wheel else {}
    if not order.offline:
        return files
    with tempfile.TemporaryDirectory() as folder:
        _run(download_command(package if files else order.package, PYTHON[system], folder))
        return files | {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def download_command(package: str, python: str, folder: str) -> list[str]:
    """How pip gets the wheels of a package, and its own, for an aarch64 with this version of Python."""
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(OLDEST_GLIBC_MINOR, NEWEST_GLIBC_MINOR + 1)]
    platforms = [word for tag in (*tags, "manylinux2014_aarch64") for word in ("--platform", tag)]
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    return [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, *options, package, "pip"]


def _check_system(deb: str, system: System) -> None:
    named = _DEB.fullmatch(deb)
    release = _RELEASES.get(named[1], named[1]) if named else ""
    if named is None or (release, named[2]) != (DEBIAN[system], "arm64"):
        raise ConfigurationError(
            f"package {deb}: not for this card, which has {system}; build that one: make deb RELEASE={DEBIAN[system]}"
            " ARCH=arm64"
        )


def _read(path: Path, is_whole: Callable[[bytes], bool], command: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"package {path}: {why_unreadable(error, f'build it first: {command}')}") from error
    if not is_whole(content):
        raise ConfigurationError(f"package {path}: {len(content)} bytes, cut off or no package; anew: {command}")
    return content


def _is_whole_wheel(content: bytes) -> bool:
    return zipfile.is_zipfile(io.BytesIO(content))


def _is_whole_deb(content: bytes) -> bool:
    """Whether it is an ar archive, each of whose members is there to its end, and the first is a package's."""
    at = len(_AR)
    if not content.startswith(_AR + b"debian-binary"):
        return False
    while at < len(content):
        size = content[at + _AR_SIZE.start : at + _AR_SIZE.stop].strip()
        if not size.isdigit():
            return False
        at += _AR_HEADER_BYTES + int(size)
        at += at % 2
    return at == len(content)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"pip took over {DOWNLOAD_SECONDS:.0f} s; check the network") from error
    except subprocess.CalledProcessError as error:
        said = next((line for line in reversed(error.stderr.splitlines()) if line.strip()), "no reason given")
        raise ConfigurationError(f"pip can't get the packages for the card: {said}; check the network") from error
