"""A small Debian under `systemd-nspawn --boot`: real units, run by a real systemd, with no network but its own.

The root is made once, in build/nspawn (debootstrap, as root), and copied for each container.
"""

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.waiting import until

TREE = Path(__file__).parents[2]
BUILD = TREE / "build" / "nspawn"
SUITE = "bookworm"
_EVERYWHERE = ("systemd", "systemd-sysv", "dbus", "python3", "libnss-systemd")
PACKAGES = {
    "bookworm": (*_EVERYWHERE, "python3-venv", "mosquitto", "openssl"),
    "trixie": (*_EVERYWHERE, "cloud-init", "netplan.io", "openssh-server", "sudo"),
}
"""Of Debian's two suites that Raspberry Pi OS is made of; the second sets itself up by cloud-init, as there."""
MIRROR = "http://deb.debian.org/debian"
LANDLOCK = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
"""The container's own filter leaves these out; a machine's kernel has them."""
BOOT_SECONDS = 120.0
FEED = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as gate:
    gate.connect("/run/edge-agent/samples.sock")
    answers = gate.makefile()
    for line in sys.stdin:
        gate.sendall(line.encode())
        answer = answers.readline()
        assert json.loads(answer) == {"ok": True}, answer
"""


def base(suite: str = SUITE) -> Path:
    """The root that containers of a suite are copies of."""
    root = BUILD / suite
    if not root.exists():
        unfinished = BUILD / f"{suite}-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        _run("debootstrap", "--variant=minbase", suite, str(unfinished), MIRROR)
        install = ("apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES[suite])
        _run("chroot", str(unfinished), "env", "DEBIAN_FRONTEND=noninteractive", *install)
        unfinished.rename(root)
    return root


def copy_of_base(folder: Path, suite: str = SUITE) -> Path:
    """One of those copies, in a folder that does not exist yet, with its device files."""
    subprocess.run(["cp", "--archive", "--reflink=auto", base(suite), folder], check=True)
    return folder


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def wheels(extra: str) -> Path:
    """A folder with the tree's own wheel and those of all that it needs."""
    folder = BUILD / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [TREE / ".venv/bin/python", "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--wheel-dir", folder, f"{TREE}[{extra}]"], check=True, capture_output=True)
    return folder


@dataclass(slots=True)
class Container:
    """A system in the folder `root`."""

    root: Path
    _nspawn: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _leader: int = field(default=0, init=False)

    @property
    def leader(self) -> int:
        """Its first process, as this machine counts."""
        return self._leader

    def boot(self) -> None:
        """Start its systemd, and wait until it has started what it starts."""
        self.start()
        until(self._is_up, "the container's systemd is up", BOOT_SECONDS)

    def start(self, *command_line: str) -> None:
        """Start its systemd, with words as the kernel's command line has them."""
        # Without a systemd on this machine there is none to register with.
        alone = () if Path("/run/systemd/system").exists() else ("--register=no", "--keep-unit")
        self._nspawn = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--boot", "--private-network", "--console=pipe", *alone),
                *(f"--system-call-filter={LANDLOCK}", "--directory", self.root),
                *command_line,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._leader = until(self._first_process, "the container's first process")

    def power_off(self) -> None:
        """End it as a machine is shut down."""
        self.run("systemctl poweroff")
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Until it has powered itself off."""
        assert self._nspawn is not None
        self._nspawn.wait(BOOT_SECONDS)

    def kill(self) -> None:
        """End it, however it is."""
        if self._nspawn is not None:
            self._nspawn.terminate()
            self._nspawn.wait(BOOT_SECONDS)

    def run(self, command: str, stdin: str = "") -> str:
        """What a shell command says, which must succeed."""
        ended = self.attempt(command, stdin)
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def attempt(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The same, whatever comes of it."""
        inside = ["nsenter", "--target", str(self._leader), "--all", "sh", "-c", command]
        return subprocess.run(inside, input=stdin, capture_output=True, text=True, check=False, timeout=600)

    def feed(self, lines: str) -> None:
        """Give the agent in it samples, one JSON object a line."""
        self.run(f"python3 -c '{FEED}'", lines)

    def _first_process(self) -> int | None:
        """The child that has process numbers of its own: the one before it only makes it, and ends."""
        assert self._nspawn is not None
        ours = Path("/proc/self/ns/pid").readlink()
        for child in psutil.Process(self._nspawn.pid).children():
            with suppress(FileNotFoundError):
                if Path(f"/proc/{child.pid}/ns/pid").readlink() != ours:
                    return child.pid
        return None

    def _is_up(self) -> bool:
        return self.attempt("systemctl is-system-running").stdout.strip() in {"running", "degraded"}
