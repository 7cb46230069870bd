"""Installs a program as a service of systemd, and takes it away again: units, account, folder, command, completions.

What is installed is in the package (systemd/ and completions/ of the tree). Nothing is written, and nothing is taken
away, that a service does not list: configuration, key and state stay. A Debian package brings its own: from there only
what follows from the configuration is written.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fleet_host.command_line import Verbs, add_verb
from fleet_host.new_files import remedy_for, replace_file
from fleet_protocol.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent
SHIPPED = (_PACKAGE, _PACKAGE.parent)
"""Where the folders `systemd` and `completions` are: in an installed wheel, and in a checkout."""
UNITS = Path("etc/systemd/system")
PROGRAMS = "/opt/edgeflock/bin"
"""Where the shipped units have their programs; replaced by the folder of the interpreter that installs them."""
PACKAGE_UNITS = Path("usr/lib/systemd/system")
"""Where a Debian package has them."""
PACKAGE_FOLDER = Path("/usr/lib")
"""Has a folder for each Debian package, with the environment of its program."""
UNREACHABLE = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - they are refused
"""The units' ProtectHome= and PrivateTmp= hide what is there."""
OWN_FOLDERS = (".service.d", "completions", "bash-completion", "sysusers.d", "tmpfiles.d")
"""Ends of the names of folders that may be there for these files alone: they go when they are empty."""
FILE_MODE = 0o644
SYSTEM_ROOT = Path("/")

Run = Callable[[Sequence[str]], None]
Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Service:
    """A program, the units that are installed for it, and those of them that are enabled, in the order of their start.

    `package` is its Debian package; `configured_by` the command that writes `configuration`; `state` is where it has
    its files, and `more_state` are other folders that outlive it.
    """

    program: str
    package: str
    configured_by: str
    units: tuple[str, ...]
    enabled: tuple[str, ...]
    configuration: Path
    state: Path
    more_state: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Installer:
    """Where it installs, and what it does the work with. `root` other than `/` is a folder with a system in it, an
    image say, in which nothing is started; nor is it without `starts`.

    Raises:
        ConfigurationError: from each method; what can't be written or run, and what to do.
    """

    root: Path
    say: Say
    run: Run
    programs: Path
    dry_run: bool = False
    starts: bool = True

    def install(self, service: Service, extra: Mapping[Path, str]) -> None:
        """Write what differs, make the account, enable the units, and start them anew where they have a configuration.

        `extra` are further files below the root, by their relative path, such as limits; empty text: none there.
        """
        if self._is_packaged(service):
            self.say(f"the package {service.package} has installed the units of {service.program}")
        else:
            self._bring(service)
        for path, text in extra.items():
            self._put(path, text)
        if self._is_live:
            self._command("systemctl", "daemon-reload")
        if not (self.root / service.configuration.relative_to("/")).exists():
            self.say(f"it starts when {service.configuration} is there: {service.configured_by}")
        elif self._is_live and self.starts:
            self._command("systemctl", "restart", *service.enabled)
            self.say(f"started; how it is doing: systemctl status {service.program}")

    def uninstall(self, service: Service, extra: Sequence[Path]) -> None:
        """Stop and disable the units, and delete what `install` has written. Where nothing is, nothing happens."""
        if self._is_packaged(service):
            raise ConfigurationError(
                f"the package {service.package} has installed this service; sudo apt remove {service.package} takes it"
                " away, and configuration and state stay"
            )
        present = [unit for unit in service.enabled if (self.root / UNITS / unit).exists()]
        if present:
            now = ("--now",) if self._is_live else ()
            self._command("systemctl", *self._in_root(), "disable", "--quiet", *now, *reversed(present))
        for path in (*_files(service, self.programs), *extra):
            self._delete(path)
        if (self.root / _command(service)).is_symlink():
            self._delete(_command(service))
        if self._is_live:
            self._command("systemctl", "daemon-reload")
        folders = (service.configuration.parent, service.state, *service.more_state)
        kept = [str(folder) for folder in folders if self._has(folder)]
        if kept:
            self.say(f"these stay, with the account {service.program} that they belong to: {', '.join(kept)}")

    def _is_packaged(self, service: Service) -> bool:
        return self.programs == PACKAGE_FOLDER / service.package / "bin"

    def _bring(self, service: Service) -> None:
        _check_programs(self.programs)
        packaged = self.root / PACKAGE_UNITS / f"{service.program}.service"
        if packaged.exists():
            raise ConfigurationError(
                f"{packaged} is there: the package {service.package} has installed this service; use its command,"
                f" /usr/bin/{service.program}, or take it away first, configuration and state stay: sudo apt"
                f" remove {service.package}"
            )
        self._check_command(_command(service))
        for path, text in _files(service, self.programs).items():
            self._put(path, text)
        self._link(self.programs / service.program, _command(service))
        self._command("systemd-sysusers", *self._in_root(), f"{service.program}.conf")
        self._command("systemd-tmpfiles", *self._in_root(), "--create", f"{service.program}.conf")
        self._command("systemctl", *self._in_root(), "enable", "--quiet", *service.enabled)

    @property
    def _is_live(self) -> bool:
        return self.root == SYSTEM_ROOT

    def _in_root(self) -> tuple[str, ...]:
        return () if self._is_live else (f"--root={self.root}",)

    def _has(self, folder: Path) -> bool:
        return (self.root / folder.relative_to("/")).exists()

    def _put(self, path: Path, text: str) -> None:
        target = self.root / path
        if not text:
            self._delete(path)
        elif not target.is_file() or target.read_text() != text:
            self.say(f"write {target}")
            if not self.dry_run:
                with _explained(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    replace_file(target, text.encode(), FILE_MODE)

    def _check_command(self, path: Path) -> None:
        link = self.root / path
        if link.exists() and not link.is_symlink():
            raise ConfigurationError(f"{link} is there and no link of ours; move it away, and run this again")

    def _link(self, program: Path, path: Path) -> None:
        link = self.root / path
        if link.is_symlink() and link.readlink() == program:
            return
        self.say(f"link {link} to {program}")
        if not self.dry_run:
            with _explained(link):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(program)

    def _delete(self, path: Path) -> None:
        target = self.root / path
        if not (target.exists() or target.is_symlink()):
            return
        self.say(f"delete {target}")
        if not self.dry_run:
            with _explained(target):
                target.unlink()
            for folder in target.parents:
                if not folder.name.endswith(OWN_FOLDERS):
                    break
                with suppress(OSError):  # what somebody else has put there stays
                    folder.rmdir()

    def _command(self, *command: str) -> None:
        self.say(" ".join(command))
        if not self.dry_run:
            self.run(command)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into words."""
    try:
        yield
    except OSError as error:
        remedy = remedy_for(error, "run it with sudo")
        raise ConfigurationError(f"{error.filename or path}: {error.strerror}; {remedy}") from error


def run_command(command: Sequence[str]) -> None:
    """Run a program of systemd's.

    Raises:
        ConfigurationError: it is not there, or says what is wrong.
    """
    try:
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise ConfigurationError(f"{command[0]}: {error.strerror}; this is for systems that systemd runs") from error
    if ended.returncode:
        raise ConfigurationError(f"{' '.join(command)}: {ended.stderr.strip() or f'ended with {ended.returncode}'}")


def programs_folder(root: Path) -> Path:
    """Where the commands of this installation are, as a service sees them that runs in `root`."""
    folder = Path(sys.prefix) / "bin"
    if root == SYSTEM_ROOT:
        return folder
    return Path("/") / folder.relative_to(root) if folder.is_relative_to(root) else Path(PROGRAMS)


def add_service_verbs(verbs: Verbs) -> None:
    """Add `install-service` and `uninstall-service`."""
    install = add_verb(verbs, "install-service", "Install this program as a service of systemd, and start it.")
    uninstall = add_verb(verbs, "uninstall-service", "Stop the service and delete it; configuration and state stay.")
    for verb in (install, uninstall):
        verb.add_argument(
            "--root", type=Path, default=SYSTEM_ROOT, metavar="DIR", help="in a system that does not run: an image's"
        )
        verb.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    install.add_argument("--no-start", action="store_true", help="start nothing, and nothing anew")


def installer_of(options: argparse.Namespace) -> Installer:
    """What the command line asks for."""
    root: Path = options.root.absolute()
    if not root.is_dir():
        raise ConfigurationError(f"--root {root}: no such folder; name the one where the image's system is mounted")
    starts = not getattr(options, "no_start", False)
    return Installer(root, _say, run_command, programs_folder(root), options.dry_run, starts)


def installer_here() -> Installer:
    """For the system that runs."""
    return Installer(SYSTEM_ROOT, _say, run_command, programs_folder(SYSTEM_ROOT))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _check_programs(folder: Path) -> None:
    if hidden := [each for each in UNREACHABLE if folder.is_relative_to(each)]:
        raise ConfigurationError(
            f"{folder}: a service sees nothing in {hidden[0]}; install edgeflock elsewhere: python3 -m venv"
            " /opt/edgeflock && /opt/edgeflock/bin/pip install edgeflock"
        )


def _files(service: Service, programs: Path) -> dict[Path, str]:
    """What is written below the root, and its content."""
    name = service.program
    files = {UNITS / unit: _shipped(f"systemd/{unit}").replace(PROGRAMS, str(programs)) for unit in service.units}
    files[Path(f"etc/sysusers.d/{name}.conf")] = _shipped(f"systemd/{name}.sysusers.conf")
    files[Path(f"etc/tmpfiles.d/{name}.conf")] = _shipped(f"systemd/{name}.tmpfiles.conf")
    completion = Path(f"usr/local/share/bash-completion/completions/{name}")
    files[completion] = _shipped(f"completions/{name}.bash")
    return files


def _command(service: Service) -> Path:
    return Path("usr/local/bin") / service.program


def shipped_file(name: str) -> Path:
    """A file that ships, by its path in the tree."""
    return next(folder / name for folder in SHIPPED if (folder / name).is_file())


def _shipped(name: str) -> str:
    return shipped_file(name).read_text()
