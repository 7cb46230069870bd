"""A Docker daemon of the tests' own, beside any other, with images that are built from the tree and no registry."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.container import MIRROR, SUITE, TREE
from tests.support.waiting import until
from workbench.docker_fleet.compose import IMAGES

BUILD = TREE / "build" / "docker"
BASE, BASE_PACKAGES = "edgeflock-base", "python3,python3-venv,mosquitto,mosquitto-clients,iproute2"
WORKBENCH, HELPER = "workbench", "helper"
TAGS: Mapping[str, str] = {**IMAGES, HELPER: "edgeflock-helper", WORKBENCH: WORKBENCH}
"""Of the images, by their target in docker/Dockerfile."""
START_SECONDS = 120.0
BUILD_SECONDS = 1200.0


@dataclass(frozen=True, slots=True)
class DockerHost:
    """A daemon that runs; `variables` lead a docker command to it, and programs that are started by `inside` reach the
    ports that its containers publish.
    """

    variables: dict[str, str]
    inside: tuple[str, ...]

    def docker(self, *arguments: str) -> str:
        """What a command of docker says, which must succeed."""
        command = ["docker", *arguments]
        ended = subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
        assert ended.returncode == 0, f"{' '.join(command)}: {ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def left(self) -> list[str]:
        """Containers, volumes and networks that are there, without those of the daemon itself."""
        networks = self.docker("network", "ls", "--filter", "type=custom", "--quiet")
        return f"{self.docker('ps', '--all', '--quiet')} {self.docker('volume', 'ls', '--quiet')} {networks}".split()


@contextmanager
def docker_host() -> Iterator[DockerHost]:
    """A daemon with nothing in it, in a network of its own: it leaves no trace, not even in this machine's firewall."""
    packages = ("docker.io", "debootstrap", "iproute2", "iptables")
    subprocess.run(["sh", TREE / "tests/support/system_packages.sh", *packages], check=True)
    subprocess.run(["sh", TREE / "tests/support/docker_plugins.sh", BUILD, MIRROR], check=True)
    folder = Path(tempfile.mkdtemp(prefix="edgeflock-docker-"))  # short: it has sockets in it
    network, socket = folder.name, folder / "docker.sock"
    inside = ("nsenter", f"--net=/run/netns/{network}")
    command = [
        *(*inside, "dockerd", "--host", f"unix://{socket}", "--pidfile", str(folder / "pid"), "--bridge", "none"),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
    ]
    subprocess.run(["ip", "netns", "add", network], check=True)
    try:
        subprocess.run(["ip", "-netns", network, "link", "set", "lo", "up"], check=True)
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            until(lambda: socket.exists() or daemon.poll() is not None, "dockerd listens", START_SECONDS)
            assert daemon.poll() is None, (folder / "log").read_text()[-2000:]
            yield DockerHost({"DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(BUILD)}, inside)
        finally:
            daemon.terminate()
            daemon.wait(START_SECONDS)
    finally:
        subprocess.run(["ip", "netns", "delete", network], check=True)
        shutil.rmtree(folder)


def build_images(host: DockerHost) -> None:
    """Build every target of docker/Dockerfile, on a small Debian, with packages from docker/wheels alone."""
    root = BUILD / "base.tar"
    if not root.exists():
        made = BUILD / "unfinished.tar"
        debootstrap = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE]
        with tempfile.TemporaryDirectory(prefix="edgeflock-base-") as folder:
            subprocess.run([*debootstrap, folder, MIRROR], check=True, capture_output=True)
            subprocess.run(["tar", "--directory", folder, "--create", "--file", made, "."], check=True)
        made.rename(root)
    host.docker("import", str(root), BASE)
    with tempfile.TemporaryDirectory(prefix="edgeflock-context-") as folder:
        context = Path(folder)
        _write_context(context)
        for target, tag in TAGS.items():
            host.docker(
                *(
                    "build",
                    "--quiet",
                    "--network",
                    "none",
                    "--build-arg",
                    f"BASE={BASE}",
                    "--build-arg",
                    "PIP_NO_INDEX=1",
                ),
                *(
                    "--file",
                    str(context / "docker/Dockerfile"),
                    "--target",
                    target,
                    "--tag",
                    tag,
                ),
                folder,
            )


def _write_context(context: Path) -> None:
    """What .dockerignore lets through, with wheels of all that is needed."""
    shutil.copy(TREE / ".dockerignore", context)
    (context / "docker").mkdir()
    shutil.copy(TREE / "docker/Dockerfile", context / "docker")
    for name in (TREE / ".dockerignore").read_text().splitlines():
        if name.startswith("!") and name != "!docker/wheels":
            copy = shutil.copytree if (TREE / name[1:]).is_dir() else shutil.copy
            copy(TREE / name[1:], context / name[1:])
    pip = [TREE / ".venv/bin/python", "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--wheel-dir", context / "docker/wheels", f"{TREE}[demo]", "hatchling>=1.27"], check=True)
