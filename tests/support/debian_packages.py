"""The Debian packages as the tree makes them, the same as an older release, and a system that has both at hand."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.container import SUITE, TREE, Container, copy_of_base

INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install --yes"
OLDER = "0.0.9"


@dataclass(frozen=True, slots=True)
class Packages:
    """Folders with both packages: as the tree makes them, and the same as an older release."""

    newer: Path
    older: Path


def make_packages(folder: Path) -> Packages:
    """Both kinds, in a folder."""
    made = Packages(folder / "newer", folder / "older")
    build = ["sh", "packaging/debian/build.sh", made.newer, ".venv/bin/python", SUITE]
    done = subprocess.run(build, cwd=TREE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for deb in made.newer.iterdir():
        _make_older(deb, made.older)
    return made


def _make_older(deb: Path, folder: Path) -> None:
    """The same program, packed as an older release."""
    unpacked = folder / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    subprocess.run(["dpkg-deb", "--raw-extract", deb, unpacked], check=True)
    (metadata,) = unpacked.glob("usr/lib/edgeflock-*/lib/python*/site-packages/edgeflock-*.dist-info/METADATA")
    for file in (unpacked / "DEBIAN/control", metadata):
        file.write_text(re.sub(r"^Version: [0-9.]+", f"Version: {OLDER}", file.read_text(), flags=re.MULTILINE))
    subprocess.run(["dpkg-deb", "--build", "-Znone", unpacked, folder / deb.name], check=True, capture_output=True)
    shutil.rmtree(unpacked)


@contextmanager
def booted_with(packages: Packages, folder: Path) -> Iterator[Container]:
    """A running system that has the packages in `/newer` and `/older`, and none of them installed."""
    root = copy_of_base(folder / "root")
    shutil.copytree(packages.newer, root / "newer")
    shutil.copytree(packages.older, root / "older")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    system = Container(root)
    try:
        system.boot()
        yield system
    finally:
        system.kill()
        subprocess.run(["rm", "--recursive", "--force", root], check=True)
