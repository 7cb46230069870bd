"""Cards as `edgeflock flash` makes them: images with a boot partition of Raspberry Pi OS, before and after."""

import os
import struct
import subprocess
import sys
from pathlib import Path

from tests.support.process import TREE, environment

BOOKWORM = {"cmdline.txt": b"console=tty1 root=PARTUUID=1-02 rootwait\n", "config.txt": b"arm_64bit=1\n"}
TRIXIE = BOOKWORM | {
    "user-data": b"#cloud-config\n# users:\n",
    "meta-data": b"dsmode: local\n",
    "network-config": b"# wifis:\n",
}
SECTORS_PER_MIB = 2048
PARTITION_START = SECTORS_PER_MIB
"""The boot partition's first sector, of 512 bytes."""
FAT32_FROM_MIB = 64


def image_of(path: Path, files: dict[str, bytes], kind: int = 0x0C, mib: int = 24) -> Path:
    """An image of a card whose one partition, of `mib` MiB, holds these files."""
    sectors = mib * SECTORS_PER_MIB
    entry = struct.pack("<B3xB3xII", 0, kind, PARTITION_START, sectors)
    table = bytes(446) + entry + bytes(48) + b"\x55\xaa"
    with path.open("wb") as file:
        file.write(table)
        file.truncate((PARTITION_START + sectors) * 512)
    fat32 = ("-F",) if mib >= FAT32_FROM_MIB else ()
    mtools(path, "mformat", *fat32, "-T", str(sectors), "-h", "64", "-s", "32", "::")
    for name, content in files.items():
        mtools(path, "mcopy", "-", f"::/{name}", given=content)
    return path


def read_back(image: Path, folder: Path) -> None:
    """Copy every file of an image's boot partition into a folder that is there; all may be run, as on a mounted FAT."""
    mtools(image, "mcopy", "-s", "-n", "::/*", f"{folder}/")
    for path in folder.rglob("*"):
        path.chmod(0o755)


def mtools(image: Path, tool: str, *words: str, given: bytes = b"") -> bytes:
    """What a program of mtools says of an image's boot partition."""
    command = [tool, "-i", f"{image}@@{PARTITION_START * 512}", *words]
    variables = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    return subprocess.run(command, check=True, input=given, capture_output=True, env=variables).stdout


def wheel_of_tree(folder: Path) -> Path:
    """This tree's wheel, made in a folder."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", folder, TREE], check=True, capture_output=True)
    (wheel,) = folder.glob("edgeflock-*.whl")
    return wheel


def flash_offline(**options: str | Path) -> str:
    """What `edgeflock flash --offline` says with these options, which has to succeed."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-P", "-m", "workbench.cli", "flash", "--offline", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout
