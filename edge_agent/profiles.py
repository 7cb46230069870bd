"""The files of firmware_profiles/: what kinds of device there are, and what each can bear."""

from pathlib import Path

from fleet_protocol.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent
FOLDERS = (_PACKAGE / "firmware_profiles", _PACKAGE.parent / "firmware_profiles")
"""In an installed wheel, and in a checkout."""


def profile_file(name: str) -> Path:
    """The file of a profile: one that ships, such as `pi-4`, or any other by its path.

    Raises:
        ConfigurationError: there is none; the message lists those that ship.
    """
    for path in (Path(name), *(folder / f"{name}.toml" for folder in FOLDERS)):
        if path.is_file():
            return path
    raise ConfigurationError(f"profile {name}: no such file; edgeflock ships {', '.join(shipped_profiles())}")


BOARDS = {
    "Raspberry Pi Zero 2 W": "pi-zero-2w",
    "Raspberry Pi 3 Model B": "pi-3b",
    "Raspberry Pi 4 Model B": "pi-4",
    "Raspberry Pi 5": "pi-5",
}
"""How the device tree's model begins, and the profile for it."""
GENERIC = "generic"
MODEL = Path("/proc/device-tree/model")


def detected_profile(model: Path = MODEL) -> str:
    """The profile of this board; the generic one where it is no board that is known."""
    try:
        name = model.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return GENERIC
    return next((profile for board, profile in BOARDS.items() if name.startswith(board)), GENERIC)


def shipped_profiles() -> list[str]:
    """Their names."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.toml")})
