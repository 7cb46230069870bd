"""`edgeflock flash`: a card joins at its first boot, can be flashed again and undone, and a bad one stays as it was."""

import os
import subprocess
import zipfile
from pathlib import Path

import msgspec
import pytest
import yaml

from edge_agent.profiles.files import FOLDERS
from fleet_protocol.configuration import convert_document
from fleet_protocol.device_invitation import DeviceInvitation, write_invitation
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB
from tests.support.cards import BOOKWORM, TRIXIE, image_of, mtools
from workbench.flash_verb import flash as flash_verb
from workbench.flashing.boot_partition import MountedPartition, opened
from workbench.flashing.card_files import System
from workbench.flashing.cards import flash_cards
from workbench.flashing.flash import flash, undo
from workbench.flashing.fleet_file import card_of, read_fleet
from workbench.flashing.order import Order
from workbench.flashing.packages import carried, download_command, with_package

DEB = b"!<arch>\n" + b"".join(
    b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(content)) + content
    for name, content in ((b"debian-binary", b"2.0\n"), (b"control.tar.xz", b"c" * 32), (b"data.tar.xz", b"d" * 64))
)
BOOKWORM_DEB = "edgeflock-agent_0.1.0-1+deb12_arm64.deb"
SCRIPTS = next(folder / "first-boot" for folder in FOLDERS if folder.is_dir())
SYSTEMS = {System.FIRST_RUN: BOOKWORM, System.CLOUD_INIT: TRIXIE}
INVITED = DeviceInvitation(
    "broker.example", 8883, b"\x01" * 32, b"\x02" * 32, "home", "0", "kitchen_pi", b"\x03" * 16, 2**33
)


def invitation_for(name: str, **changed: object) -> str:
    return write_invitation(msgspec.structs.replace(INVITED, device=name, **changed))


ORDER = {
    "profile": "pi-zero-2w",
    "name": "kitchen_pi",
    "invitation": invitation_for("kitchen_pi"),
    "wifi_name": "Café 'x'; $(id)",
    "wifi_passphrase": "correct horse \"'$(id)",
    "country": "DE",
    "user": "ada",
    "ssh_key": "ssh-ed25519 AAAAC3Nz $(id) 'me'\n",
    "package": "edgeflock==0.1.0",
}
NOW = 1.8e9
"""Before the invitations end."""


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def content_of(card: dict[str, Path]) -> dict[str, bytes]:
    """Every file of a card, as another program reads it."""
    if "boot" in card:
        files = (path for path in card["boot"].rglob("*") if path.is_file())
        return {str(path.relative_to(card["boot"])): path.read_bytes() for path in files}
    names = [
        name for name in mtools(card["image"], "mdir", "-b", "-/", "::").decode().split() if not name.endswith("/")
    ]
    return {name.removeprefix("::/"): mtools(card["image"], "mtype", name) for name in names}


@pytest.fixture(params=["boot", "image"])
def card(request, tmp_path):
    """Makes a card with these files, mounted or as an image."""

    def make(files):
        make_card = {"boot": folder_of, "image": image_of}[request.param]
        return {request.param: make_card(tmp_path / f"card-{request.param}", files)}

    return make


def flashed(card: dict[str, Path], *, replace: bool = False, **changed: object) -> dict[str, bytes]:
    where = {place: str(path) for place, path in card.items()}
    list(flash_cards([card_of({**ORDER, **changed, **where}, "test", Path())], NOW, replace=replace))
    return content_of(card)


def undone(card: dict[str, Path]) -> dict[str, bytes]:
    with opened(card.get("boot"), card.get("image")) as partition:
        undo(partition, "card")
    return content_of(card)


@pytest.mark.parametrize("system", SYSTEMS)
def test_flashed_again_is_the_same_and_undone_is_what_was_there_byte_for_byte(card, system):
    made = card(SYSTEMS[system])
    before = content_of(made)
    first = flashed(made)
    assert flashed(made) == first
    other = flashed(made, user="", ssh_key="", wifi_name="", wifi_passphrase="", country="")
    assert other != first
    assert undone(made) == before == SYSTEMS[system]


def test_trixie_gets_what_cloud_init_reads(tmp_path):
    files = flashed({"boot": folder_of(tmp_path / "card", TRIXIE)})
    user_data = yaml.safe_load(files["user-data"])
    assert files["user-data"].startswith(b"#cloud-config\n")
    assert user_data["hostname"] == "kitchen-pi"
    (account,) = user_data["users"]
    assert (account["name"], account["ssh_authorized_keys"]) == ("ada", [ORDER["ssh_key"].strip()])
    assert account["lock_passwd"] is True
    assert user_data["runcmd"][-1] == ["systemctl", "enable", "--now", "--no-block", "edgeflock-first-boot.service"]
    wlan = yaml.safe_load(files["network-config"])["network"]["wifis"]["wlan0"]
    assert list(wlan["access-points"]) == [ORDER["wifi_name"]]
    assert len(wlan["access-points"][ORDER["wifi_name"]]["password"]) == 64
    assert yaml.safe_load(files["meta-data"])["instance-id"].startswith("edgeflock-kitchen-pi-")
    assert b"regdom=DE" in files["cmdline.txt"]
    assert b"systemd.run" not in files["cmdline.txt"]


def test_another_invitation_is_another_instance_that_cloud_init_sets_up_anew(tmp_path):
    made = {"boot": folder_of(tmp_path / "card", TRIXIE)}
    assert flashed(made)["meta-data"] != flashed(made, invitation=invitation_for("kitchen_pi", port=1))["meta-data"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_passphrase_is_nowhere_on_a_card(card, system):
    files = flashed(card(SYSTEMS[system]))
    assert not any(ORDER["wifi_passphrase"].encode() in content for content in files.values())


def test_wifi_key_is_what_wpa_passphrase_makes():
    order = convert_document({**ORDER, "wifi_name": "IEEE", "wifi_passphrase": "password"}, Order, "order")
    assert order.wifi_key == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"


def test_settings_are_never_read_as_commands(tmp_path):
    files = flashed({"boot": folder_of(tmp_path / "card", BOOKWORM)}, password_hash="$6$salt$abcdefgh")
    script = (
        files["edgeflock/settings.sh"].decode() + 'printf "%s\\n" "$host_name" "$profile" "$user" "$password_hash"\n'
    )
    said = subprocess.run(["sh", "-eu"], input=script, check=True, capture_output=True, text=True).stdout
    assert said.split() == ["kitchen-pi", "pi-zero-2w", "ada", "$6$salt$abcdefgh"]


@pytest.mark.parametrize("script", ["firstrun.sh", "first-boot.sh"])
def test_scripts_are_of_the_shell(script):
    subprocess.run(["sh", "-n", str(SCRIPTS / script)], check=True)


@pytest.fixture
def root(tmp_path):
    """The root of a device whose boot partition is a flashed card of Bookworm."""
    root = tmp_path / "root"
    (root / "boot").mkdir(parents=True)
    flashed({"boot": folder_of(root / "boot" / "firmware", BOOKWORM)})
    for folder in ("etc/systemd/system", "usr/lib/userconf-pi", "var/lib/systemd/rfkill"):
        (root / folder).mkdir(parents=True)
    (root / "etc/hostname").write_text("raspberrypi\n")
    (root / "etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")
    (root / "var/lib/systemd/rfkill/platform-1:wlan").write_text("1\n")
    executable(root / "usr/lib/userconf-pi/userconf", f'printf "%s\\n" "$@" > {root}/account')
    return root


def installed(root: Path, line: str) -> None:
    """The program that first-boot.sh has installed, standing in for it with a line of shell."""
    executable(root / "opt/edge-agent/bin/edge-agent", line)
    (root / "opt/edge-agent/installed").touch()


def executable(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def run(script: Path, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGEFLOCK_ROOT": str(root)}
    return subprocess.run(["sh", str(script)], check=False, capture_output=True, text=True, env=environment)


def test_first_run_names_the_device_and_leaves_a_service_that_joins(root):
    boot = root / "boot/firmware"
    assert run(boot / "firstrun.sh", root).returncode == 0
    assert (root / "etc/hostname").read_text() == "kitchen-pi\n"
    assert (root / "etc/hosts").read_text() == "127.0.0.1\tlocalhost\n127.0.1.1\tkitchen-pi\n"
    assert (root / "account").read_text() == "ada\n*\n"
    assert (root / "home/ada/.ssh/authorized_keys").read_text() == ORDER["ssh_key"]
    wifi = root / "etc/NetworkManager/system-connections/edgeflock.nmconnection"
    assert wifi.stat().st_mode & 0o777 == 0o600
    assert "ssid=" + "".join(f"{byte};" for byte in ORDER["wifi_name"].encode()) in wifi.read_text()
    assert (root / "var/lib/systemd/rfkill/platform-1:wlan").read_text() == "0\n"
    wanted = root / "etc/systemd/system/multi-user.target.wants/edgeflock-first-boot.service"
    assert str(wanted.readlink()) == "/etc/systemd/system/edgeflock-first-boot.service"
    assert (
        boot / "cmdline.txt"
    ).read_text() == "console=tty1 root=PARTUUID=1-02 rootwait cfg80211.ieee80211_regdom=DE\n"
    assert not (boot / "firstrun.sh").exists()
    assert not (boot / "edgeflock/wifi.nmconnection").exists()


def test_first_boot_joins_with_the_invitation_as_it_is_and_forgets_it(root):
    installed(root, f'printf "%s\\n" "$@" > {root}/joined')
    card = root / "boot/firmware/edgeflock"
    done = run(card / "first-boot.sh", root)
    assert done.returncode == 0, done.stderr
    assert (root / "joined").read_text() == f"join\n--profile\npi-zero-2w\n--\n{ORDER['invitation']}\n"
    assert not (card / "invitation").exists()
    assert (root / "usr/local/bin/edge-agent").is_symlink()
    assert run(card / "first-boot.sh", root).returncode == 0


def test_first_boot_that_can_not_join_keeps_the_invitation_and_is_tried_again(root):
    installed(root, "exit 1")
    card = root / "boot/firmware/edgeflock"
    assert run(card / "first-boot.sh", root).returncode == 1
    assert (card / "invitation").exists()


@pytest.mark.parametrize(("status", "asked_apt"), [("not-installed", True), ("installed", False)])
def test_first_boot_installs_the_debian_package_once_and_joins_with_its_command(root, monkeypatch, status, asked_apt):
    tools = root / "tools"
    executable(tools / "dpkg-query", f"printf {status}")
    executable(tools / "dpkg", "true")
    executable(tools / "apt-get", f'printf "%s\\n" "$@" > {root}/asked')
    executable(root / "usr/lib/edgeflock-agent/bin/edge-agent", f'printf "%s\\n" "$@" > {root}/joined')
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    card = root / "boot/firmware/edgeflock"
    with (card / "settings.sh").open("a") as settings:
        settings.write(f"package={BOOKWORM_DEB}\n")
    done = run(card / "first-boot.sh", root)
    assert done.returncode == 0, done.stderr
    assert (root / "joined").read_text().startswith("join\n")
    assert (root / "asked").exists() == asked_apt
    assert not asked_apt or (root / "asked").read_text().endswith(f"{card}/wheels/{BOOKWORM_DEB}\n")
    assert not (root / "usr/local/bin/edge-agent").exists()


def test_first_boot_that_was_cut_off_while_it_installed_begins_anew(root, monkeypatch):
    executable(root / "opt/edge-agent/bin/edge-agent", "exit 0")
    program = root / "opt/edge-agent"
    executable(root / "tools/python3", f'[ "$2" = venv ] || exit 0; test ! -e {program} && exit 7')
    monkeypatch.setenv("PATH", f"{root / 'tools'}:{os.environ['PATH']}")
    assert run(root / "boot/firmware/edgeflock/first-boot.sh", root).returncode == 7
    assert not (program / "installed").exists()


def test_card_that_has_booted_is_not_undone(root):
    boot = root / "boot/firmware"
    run(boot / "firstrun.sh", root)
    with pytest.raises(ConfigurationError, match="changed since the card was flashed"):
        undone({"boot": boot})


def test_card_that_was_written_halfway_when_the_power_failed_is_flashed_again_or_undone(tmp_path):
    made = {"boot": folder_of(tmp_path / "card", BOOKWORM)}
    whole = flashed(made)
    for finish, expected in ((flashed, whole), (undone, BOOKWORM)):
        (made["boot"] / "cmdline.txt").write_bytes(BOOKWORM["cmdline.txt"])
        (made["boot"] / "firstrun.sh").unlink()
        (made["boot"] / "edgeflock/invitation").unlink()
        assert finish(made) == expected


class Failing(MountedPartition):
    """A card on which the write number `allowed` fails."""

    left = 0

    def write(self, path, content):
        if Failing.left == 0:
            Failing.left = -1
            raise OSError(28, "No space left on device")
        Failing.left -= 1
        super().write(path, content)


@pytest.mark.parametrize("system", SYSTEMS)
def test_card_that_fails_at_any_write_is_as_it_was(tmp_path, system):
    folder = folder_of(tmp_path / "card", SYSTEMS[system])
    order = convert_document(ORDER, Order, "order")
    for allowed in range(8):
        Failing.left = allowed
        with pytest.raises(ConfigurationError, match="No space left on device"):
            flash(Failing(folder), "card", order, lambda *_: {}, replace=False)
        assert content_of({"boot": folder}) == SYSTEMS[system]


@pytest.mark.parametrize(
    ("files", "changed", "words"),
    [
        ({"readme": b""}, {}, "no boot partition of Raspberry Pi OS"),
        (TRIXIE | {"user-data": b"#cloud-config\nusers: []\n"}, {}, "user-data has settings already"),
        (BOOKWORM | {"firstrun.sh": b"reboot\n"}, {}, "firstrun.sh has settings already"),
        (BOOKWORM | {"cmdline.txt": b"x systemd.run=/boot/x.sh\n"}, {}, "runs another script"),
        (BOOKWORM | {"filler": bytes(23 * MIB)}, {}, "MB are needed on the boot partition"),
        (BOOKWORM | {"edgeflock": b""}, {}, "check the card"),
        (BOOKWORM, {"profile": "pi-9"}, "profile pi-9: edgeflock ships none of that name; choose one of generic"),
        (BOOKWORM, {"profile": "../../etc/passwd"}, "ships none of that name"),
        (BOOKWORM, {"name": "Kitchen Pi"}, "Expected 1 to 48 characters of a-z"),
        (BOOKWORM, {"name": "-x"}, "name '-x' can't be a host name"),
        (BOOKWORM, {"name": "a\nb"}, "at `name`"),
        (BOOKWORM, {"invitation": ""}, "'': no invitation, which begins with 'edgeflock1.'"),
        (BOOKWORM, {"invitation": "x" * 5000}, "at most 2048 characters"),
        (BOOKWORM, {"invitation": ORDER["invitation"][:-5]}, "cut off or altered"),
        (BOOKWORM, {"invitation": invitation_for("attic")}, "is for attic, and the card for kitchen_pi"),
        (BOOKWORM, {"invitation": invitation_for("kitchen_pi", expires=10**9)}, "counted until 2001-09-09"),
        (BOOKWORM, {"wifi_passphrase": "short"}, "the Wi-Fi's passphrase is none"),
        (BOOKWORM, {"wifi_name": "x" * 33}, "at most 32 bytes"),
        (BOOKWORM, {"wifi_name": "a\nb"}, "that can be printed"),
        (BOOKWORM, {"country": "Germany"}, "country 'Germany' is none"),
        (BOOKWORM, {"wifi_name": "", "wifi_passphrase": "", "country": "DE init=/bin/sh"}, "is none"),
        (BOOKWORM, {"user": "Ada Lovelace"}, "can't be an account's name"),
        (BOOKWORM, {"user": "root"}, "not root"),
        (BOOKWORM, {"ssh_key": ""}, "could not log in"),
        (BOOKWORM, {"ssh_key": "ssh-ed25519 AAAA\n" * 5000}, "over 65536 characters, the limit"),
        (BOOKWORM, {"ssh_key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, "is no public key"),
        (BOOKWORM, {"password_hash": "hunter2"}, "openssl passwd -6"),
        (BOOKWORM, {"package": "edgeflock; rm -rf /"}, "no requirement"),
        (BOOKWORM, {"package": "--index-url=http://evil"}, "no requirement"),
        (BOOKWORM, {"package": "none-1.0-py3-none-any.whl"}, "No such file"),
        (BOOKWORM, {"package": BOOKWORM_DEB}, "No such file"),
        (BOOKWORM, {"package": "other_1.0_arm64.deb"}, "not the agent's"),
    ],
)
def test_what_can_not_be_is_said_and_nothing_is_written(tmp_path, files, changed, words):
    made = {"image": image_of(tmp_path / "card.img", files)}
    before = made["image"].read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        flashed(made, **changed)
    assert words in str(caught.value)
    if words != "check the card":
        assert made["image"].read_bytes() == before
    assert content_of(made) == files


@pytest.mark.parametrize(
    "key", ["package", "wifi_name", "country", "user", "password_hash", "ssh_key", "profile", "name"]
)
def test_error_about_a_long_value_is_short(tmp_path, key):
    made = {"boot": folder_of(tmp_path / "card", BOOKWORM)}
    with pytest.raises(ConfigurationError) as caught:
        flashed(made, **{key: "x" * 70_000})
    assert len(str(caught.value)) < 1000
    assert content_of(made) == BOOKWORM


def test_endless_file_is_no_public_key_and_options_beside_a_fleet_file_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="over 65536 characters"):
        flash_verb(
            name="kitchen_pi", profile="pi-5", invitation=ORDER["invitation"], user="a", ssh_key=Path("/dev/zero")
        )
    with pytest.raises(ConfigurationError, match="--user, --boot beside --fleet; write it into"):
        flash_verb(fleet=Path("fleet.toml"), boot=tmp_path, user="ada")


def test_settings_of_others_are_replaced_on_request_and_come_back(tmp_path):
    files = TRIXIE | {"user-data": b"#cloud-config\nusers: []\n"}
    made = {"boot": folder_of(tmp_path / "card", files)}
    assert b"first-boot" in flashed(made, replace=True)["user-data"]
    assert undone(made) == files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no partition table"),
        (b"hello" * 200, "no partition table"),
        (b"\xfd7zXZ\0" + bytes(600), "unpack it first: unxz"),
        (bytes(510) + b"\x55\xaa" + bytes(512), "it has no FAT partition"),
    ],
)
def test_image_that_is_none_is_told(tmp_path, content, words):
    path = tmp_path / "card.img"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        flashed({"image": path})
    assert path.read_bytes() == content


def test_image_that_is_cut_off_is_told(tmp_path):
    path = image_of(tmp_path / "card.img", BOOKWORM)
    os.truncate(path, 4 * MIB)
    with pytest.raises(ConfigurationError, match="ends before its boot partition does"):
        flashed({"image": path})


def test_nothing_but_a_folder_and_a_file_is_ever_written_to(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "fifo")
    block = next((path for path in Path("/dev").iterdir() if path.is_block_device()), None)
    for place in [tmp_path / "link", tmp_path / "fifo", tmp_path / "missing", *filter(None, [block])]:
        for option in ("boot", "image"):
            words = "block device" if place == block else str(place)
            with pytest.raises(ConfigurationError, match=words):
                flashed({option: place})
    with pytest.raises(ConfigurationError, match="name one card"), opened(None, None):
        pass


def test_card_that_was_not_flashed_is_not_undone(card):
    with pytest.raises(ConfigurationError, match="nothing to undo"):
        undone(card(BOOKWORM))


def test_damaged_record_is_told(tmp_path):
    made = {"boot": folder_of(tmp_path / "card", BOOKWORM)}
    flashed(made)
    (made["boot"] / "edgeflock/undo.json").write_text("{")
    for action in (flashed, undone):
        with pytest.raises(ConfigurationError, match=r"undo\.json is damaged"):
            action(made)


def test_link_on_a_card_leads_nowhere(tmp_path):
    folder = folder_of(tmp_path / "card", TRIXIE)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "user-data").unlink()
    (folder / "user-data").symlink_to(secret)
    (folder / "firstrun.sh").symlink_to(secret)
    files = flashed({"boot": folder})
    assert secret.read_text() == "secret"
    assert not any(b"secret" in content for name, content in files.items() if name.startswith("edgeflock/"))


def card_named(name: str) -> str:
    return f'name = "{name}"\ninvitation = "{invitation_for(name)}"'


FLEET = f"""
[defaults]
profile = "pi-zero-2w"
[[cards]]
{card_named("one")}
boot = "one"
[[cards]]
{card_named("two")}
image = "two.img"
profile = "pi-4"
"""


def test_fleet_file_writes_every_card(tmp_path):
    folder_of(tmp_path / "one", BOOKWORM)
    image_of(tmp_path / "two.img", TRIXIE)
    (tmp_path / "fleet.toml").write_text(FLEET)
    said = list(flash_cards(read_fleet(tmp_path / "fleet.toml"), NOW, replace=False))
    assert ["Bookworm" in said[0], "Trixie" in said[1]] == [True, True]
    assert b"profile=pi-4\n" in content_of({"image": tmp_path / "two.img"})["edgeflock/settings.sh"]


def test_card_of_a_fleet_that_fails_stops_no_other(tmp_path):
    folder_of(tmp_path / "one", BOOKWORM | {"firstrun.sh": b"reboot\n"})
    image_of(tmp_path / "two.img", BOOKWORM)
    (tmp_path / "fleet.toml").write_text(FLEET)
    said = []
    with pytest.raises(ConfigurationError, match=r"one: firstrun\.sh has settings already"):
        said.extend(flash_cards(read_fleet(tmp_path / "fleet.toml"), NOW, replace=False))
    assert "edgeflock/invitation" in content_of({"image": tmp_path / "two.img"})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (card_named("two"), card_named("one"), "two cards have one name one"),
        (invitation_for("two"), invitation_for("one"), "card 2: the invitation is for one, and the card for two"),
        ('image = "two.img"', 'boot = "./one"', "two cards have one place"),
        ('boot = "one"', "boot = 1", "card 1: boot = 1 is no path"),
        ('"pi-4"', '"pi-4"\nprofil = 1', "card 2: unknown key 'profil'; did you mean 'profile'?"),
        (f'invitation = "{invitation_for("two")}"', "", "card 2: missing key `invitation`"),
        ("[[cards]]", "[[card]]", "unknown key 'card'"),
    ],
)
def test_mistake_in_a_fleet_file_is_told_before_a_card_is_touched(tmp_path, old, new, words):
    (tmp_path / "fleet.toml").write_text(FLEET.replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        read_fleet(tmp_path / "fleet.toml")
    assert words in str(caught.value)


def test_wheel_is_carried_and_installed_by_its_version(tmp_path):
    wheel = tmp_path / "edgeflock-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("edgeflock.py", "")
    content = wheel.read_bytes()
    order = convert_document({**ORDER, "package": str(wheel)}, Order, "order")
    assert with_package(order).package == "edgeflock==0.1.0"
    assert carried(str(wheel), order, System.FIRST_RUN) == {wheel.name: content}


@pytest.mark.parametrize("offline", [False, True])
def test_debian_package_is_all_that_a_card_carries_with_it(tmp_path, offline):
    deb = tmp_path / BOOKWORM_DEB
    deb.write_bytes(DEB)
    order = convert_document({**ORDER, "package": str(deb), "offline": offline}, Order, "order")
    assert with_package(order).package == deb.name
    assert carried(str(deb), order, System.FIRST_RUN) == {deb.name: DEB}
    with pytest.raises(ConfigurationError, match="make deb RELEASE=trixie ARCH=arm64"):
        carried(str(deb), order, System.CLOUD_INIT)
    with pytest.raises(ConfigurationError, match="make deb RELEASE=bookworm ARCH=arm64"):
        carried(str(deb).replace("arm64", "amd64"), order, System.FIRST_RUN)


@pytest.mark.parametrize("name", [BOOKWORM_DEB, "edgeflock-0.1.0-py3-none-any.whl"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", DEB[:-1], DEB[:-9], DEB[:100], DEB + b"x" * 70])
def test_package_that_is_cut_off_does_not_reach_a_card(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    order = convert_document({**ORDER, "package": str(tmp_path / name)}, Order, "order")
    with pytest.raises(ConfigurationError, match=f"{len(content)} bytes, cut off or no package; anew: "):
        carried(str(tmp_path / name), order, System.FIRST_RUN)


def test_packages_of_an_offline_card_are_for_its_python_and_processor():
    command = download_command("edgeflock==0.1.0", "3.11", "folder")
    assert {"manylinux_2_17_aarch64", "manylinux_2_36_aarch64", "--only-binary=:all:"} <= set(command)
    assert command[command.index("--python-version") + 1] == "3.11"
    assert command[-2:] == ["edgeflock==0.1.0", "pip"]


@pytest.mark.long
@pytest.mark.parametrize(
    "changed", [{}, {"user": "", "ssh_key": "", "wifi_name": "", "wifi_passphrase": "", "country": ""}]
)
def test_cloud_init_itself_finds_nothing_wrong(tmp_path, changed):
    files = flashed({"boot": folder_of(tmp_path / "card", TRIXIE)}, **changed)
    (tmp_path / "user-data").write_bytes(files["user-data"])
    command = ["cloud-init", "schema", "--config-file", str(tmp_path / "user-data")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "Valid" in done.stdout, done.stdout + done.stderr
