"""A fleet file becomes containers with the limits and links of their profiles; what it can't become is said."""

from pathlib import Path

import msgspec
import pytest

from broker_coordinator import configuration as coordinator
from edge_agent import configuration as agent
from edge_agent.profiles import read_profile
from fleet_protocol.configuration import parse_document
from fleet_protocol.device_invitation import DeviceInvitation, write_invitation
from fleet_protocol.errors import ConfigurationError
from workbench.docker_fleet.compose import IMAGES, Places, as_yaml, compose
from workbench.docker_fleet.devices import PlannedDevice, plan_devices
from workbench.docker_fleet.docker import host_of, mishaps, why_unreachable
from workbench.docker_fleet.files import Account, own_account, write_fleet
from workbench.docker_fleet.limits import LEAST_DEVICE_MIB, Host, limits_of, remarks, require_room
from workbench.docker_fleet.links import LinkSupport, lacking, link_lines, link_of
from workbench.docker_fleet.names import FleetNames
from workbench.flashing.fleet_file import read_fleet
from workbench.fleet_description import FleetFile, read_description

HOST = Host(cpus=4, memory_mib=16_000)
MIXED = """
[[devices]]
profile = "pi-zero-2w"
name = "kitchen"
count = 2
[[devices]]
profile = "pi-5"
"""
INVITATION = write_invitation(
    DeviceInvitation("broker.example", 8883, b"\x01" * 32, b"\x02" * 32, "home", "0", "attic", b"\x03" * 16, 2**33)
)
CARDS = f"""
[docker]
faults = ["pause attic after 3 s"]
[defaults]
profile = "pi-4"
[[cards]]
name = "attic"
invitation = "{INVITATION}"
boot = "card"
"""


def planned(text: str) -> list[PlannedDevice]:
    return plan_devices(parse_document(text, FleetFile, "fleet.toml"), Path("fleet.toml"))


def places(folder: str = "/run/fleet") -> Places:
    path = Path(folder)
    return Places(path / "broker", path / "coordinator", path / "devices", Path("/sockets"), path / "bundle", 990, 990)


def written(devices: list[PlannedDevice], host: Host = HOST, folder: str = "/run/fleet") -> dict:
    names = FleetNames.of(Path(folder))
    return msgspec.yaml.decode(as_yaml(compose(names, devices, host, places(folder), 18883)))


def test_each_device_is_a_container_with_its_profiles_memory_and_share_of_a_core() -> None:
    services = written(planned(MIXED))["services"]
    assert set(services) == {"broker", "coordinator", "disks", "kitchen-1", "kitchen-2", "pi-5"}
    zero, five = services["kitchen-2"], services["pi-5"]
    assert (zero["mem_limit"], zero["memswap_limit"], zero["cpus"]) == ("512m", "512m", 0.25)
    assert (five["mem_limit"], five["cpus"]) == ("2048m", 2.22)


def test_no_container_has_rights_or_a_root_that_it_could_write_and_none_but_the_broker_is_reached_from_outside() -> (
    None
):
    document = written(planned(MIXED))
    for name, service in document["services"].items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == "990:990"
        assert service["image"] in IMAGES.values()
        assert "privileged" not in service
    exposed = {name: service["ports"] for name, service in document["services"].items() if "ports" in service}
    assert exposed == {"broker": ["127.0.0.1:18883:1883"]}
    assert document["networks"]["fleet"] == {"internal": True}


def test_every_volume_and_network_of_a_service_is_declared_and_each_disk_is_its_devices_alone() -> None:
    document = written(planned(MIXED))
    used: dict[str, list[str]] = {}
    for name, service in document["services"].items():
        assert set(service["networks"]) <= set(document["networks"])
        for mount in service.get("volumes", []):
            if mount["type"] == "volume":
                used.setdefault(mount["source"], []).append(name)
                assert mount["volume"] == {"nocopy": True}, "the image's folder would give it another owner"
    assert used == {f"disk-{name}": ["disks", name] for name in ("kitchen-1", "kitchen-2", "pi-5")}
    assert set(document["volumes"]) == set(used)


def test_path_with_a_dollar_names_no_variable() -> None:
    device = written(planned(MIXED), folder="/home/a$b/${HOME}")["services"]["pi-5"]
    assert device["volumes"][0]["source"] == "/home/a$$b/$${HOME}/devices/pi-5"


def test_a_device_gets_no_more_processors_than_the_host_has_and_that_is_said() -> None:
    devices, small = planned(MIXED), Host(cpus=1, memory_mib=2_000)
    assert limits_of(devices[-1], small).cpus == 1
    said = list(remarks(devices, small))
    assert said[:2] == ["2 x pi-zero-2w: 0.25 of a core, 512 MiB", "1 x pi-5: 1 of a core, 2048 MiB"]
    assert "they may take 1.5 cores together, and this machine has 1" in said[2]
    assert "they may take 3072 MiB together, and this machine has 2000" in said[3]
    assert len(list(remarks(devices, HOST))) == 2


def test_kernel_without_a_limit_is_told_of() -> None:
    said = "".join(remarks(planned(MIXED), Host(8, 16_000, limits_cpus=False, limits_memory=False)))
    assert "share of a core" in said
    assert "to their memory" in said


def test_fleet_that_the_host_has_no_memory_for_is_refused_with_how_many_would_do() -> None:
    require_room(planned(MIXED), Host(1, 3 * LEAST_DEVICE_MIB))
    with pytest.raises(ConfigurationError, match=f"3 devices need .* has {3 * LEAST_DEVICE_MIB - 1}; take 2 at most"):
        require_room(planned(MIXED), Host(1, 3 * LEAST_DEVICE_MIB - 1))


def test_cards_to_flash_are_devices_to_try_and_the_same_file_serves_both(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(CARDS)
    (device,) = plan_devices(read_description(tmp_path / "fleet.toml", "guide"), tmp_path / "fleet.toml")
    assert (device.name, device.kind, device.profile) == ("attic", "pi-4", read_profile("pi-4"))
    assert [card.order.name for card in read_fleet(tmp_path / "fleet.toml")] == ["attic"]


def test_profile_of_ones_own_is_found_from_the_fleet_files_folder(tmp_path: Path) -> None:
    (tmp_path / "shed.toml").write_text('inherits = "pi-4"\n[device]\nmemory_mib = 700\n')
    (tmp_path / "fleet.toml").write_text('[[devices]]\nprofile = "./shed.toml"\ncount = 2\n')
    devices = plan_devices(read_description(tmp_path / "fleet.toml", "guide"), tmp_path / "fleet.toml")
    assert [device.name for device in devices] == ["shed-1", "shed-2"]
    assert limits_of(devices[0], HOST).memory_mib == 700


def test_two_profiles_in_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "pi-4.toml").write_text('inherits = "pi-4"\n[device]\nmemory_mib = 700\n')
    groups = '[[devices]]\nprofile = "{}"\nname = "{}"\n'
    (tmp_path / "fleet.toml").write_text(groups.format("pi-4", "a") + groups.format("./pi-4.toml", "b"))
    devices = plan_devices(read_description(tmp_path / "fleet.toml", "guide"), tmp_path / "fleet.toml")
    said = list(remarks(devices, HOST))
    assert [line.split(",")[1] for line in said[:2]] == [" 1024 MiB", " 700 MiB"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no [[devices]]"),
        ('[[devices]]\nprofile = "pi-6"', "[[devices]] 1: profile pi-6: no such file; edgeflock ships"),
        ('[[devices]]\nprofile = "pi-4"\nname = "broker"', "no device can be called 'broker'"),
        ('[[devices]]\nprofile = "pi-4"\nname = "-x"', "no device can be called '-x'"),
        (f'[[devices]]\nprofile = "pi-4"\nname = "{"x" * 48}"\ncount = 2', "with its number at most 48 characters"),
        ('[[devices]]\nprofile = "pi-4"\n[[devices]]\nprofile = "pi-4"', "2 devices are called pi-4"),
        ('[[devices]]\nprofile = "pi-4"\ncount = 0', "devices[0].count`; it is 0"),
        ('[[devices]]\nprofile = "pi-4"\ncont = 2', "unknown key 'cont'"),
        ('[[device]]\nprofile = "pi-4"', "unknown key 'device'; did you mean 'devices'?"),
        ('[[cards]]\nname = "a"', "card 1: missing key `profile`"),
        ("[docker]\nbroker_port = 70000", "docker.broker_port`; it is 70000"),
        ("[docker]\nlongest_seconds = 0", "docker.longest_seconds`; it is 0"),
    ],
)
def test_mistake_in_a_fleet_file_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned(text)
    assert words in str(caught.value)


def test_agents_and_coordinator_read_what_is_written_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.chown", lambda *_: None)
    (tmp_path / "sockets").mkdir()
    files, _ = write_fleet(tmp_path, tmp_path / "sockets", planned(MIXED), Account(1, 1), new_samples=6)
    kitchen = agent.load_configuration(files.devices[0].configuration)
    assert (kitchen.device, kitchen.profile) == ("kitchen-1", str(files.devices[0].folder / "pi-zero-2w.toml"))
    assert kitchen.worker == read_profile("pi-zero-2w").worker
    assert kitchen.guards.minimum_samples == 6
    served = coordinator.load_configuration(files.coordinator_configuration)
    assert served.broker.host == kitchen.broker.host == "broker"
    assert (files.devices[0].folder / "device.key").stat().st_mode & 0o777 == 0o600


def test_profile_may_have_any_name_that_a_file_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.chown", lambda *_: None)
    odd = 'Böse "Küche" \\ $HOME'
    (tmp_path / f"{odd}.toml").write_text('inherits = "pi-4"\n')
    named = msgspec.json.encode(f"{odd}.toml").decode()
    (tmp_path / "fleet.toml").write_text(f'[[devices]]\nprofile = {named}\nname = "kitchen"\n')
    devices = plan_devices(read_description(tmp_path / "fleet.toml", "guide"), tmp_path / "fleet.toml")
    (tmp_path / "run" / "sockets").mkdir(parents=True)
    files, _ = write_fleet(tmp_path / "run", tmp_path / "run" / "sockets", devices, Account(1, 1), new_samples=6)
    assert agent.load_configuration(files.devices[0].configuration).profile_name == odd


def test_root_runs_no_container_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert own_account() == Account(990, 990)
    monkeypatch.setattr("os.getuid", lambda: 1000)
    monkeypatch.setattr("os.getgid", lambda: 1001)
    assert own_account() == Account(1000, 1001)


def test_link_has_what_the_kernel_can_do_of_its_profile() -> None:
    link = link_of(read_profile("pi-5"))
    whole = link_lines(link, LinkSupport(latency=True, uplink=True, downlink=True))
    assert whole[0] == "qdisc replace dev INTERFACE root netem delay 60ms rate 5000000bit", "there and back"
    assert "police rate 20000000bit" in whole[2]
    (rate,) = link_lines(link, LinkSupport(latency=False, uplink=True, downlink=False))
    assert rate.startswith("qdisc replace dev INTERFACE root tbf rate 5000000bit")
    assert link_lines(link, LinkSupport(latency=False, uplink=False, downlink=False)) == []


@pytest.mark.parametrize("latency", [False, True])
@pytest.mark.parametrize("uplink", [False, True])
@pytest.mark.parametrize("downlink", [False, True])
def test_what_a_kernel_can_not_do_to_a_link_is_said_with_what_to_load(latency, uplink, downlink) -> None:
    said = " ".join(lacking(LinkSupport(latency, uplink, downlink)))
    assert ("latency" in said) == ("sch_netem" in said) == (not latency)
    assert ("links up" in said) == (not latency and not uplink), "netem has a rate too"
    assert ("act_police" in said) == (not downlink)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('{"NCPU": 4, "MemTotal": 1, "SecurityOptions": ["name=rootless"]}', "rootless"),
        ('{"NCPU": 4, "MemTotal": 1, "OperatingSystem": "Docker Desktop"}', "Docker Desktop"),
        ('{"NCPU": 0, "MemTotal": 0, "ServerErrors": ["permission denied at the socket"]}', "usermod -aG docker"),
        ('{"NCPU": 0, "MemTotal": 0, "ServerErrors": ["Cannot connect"]}', "systemctl start docker"),
        ("", "docker said: nothing"),
    ],
)
def test_daemon_that_can_not_be_used_is_told_with_what_to_do(said: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        host_of(said)


def test_machine_of_the_daemon_is_read() -> None:
    said = '{"NCPU": 2, "MemTotal": 1073741824, "CpuCfsQuota": false, "MemoryLimit": true, "SecurityOptions": null}'
    assert host_of(said.replace("null", "[]")) == Host(2, 1024, limits_cpus=False)
    assert host_of(said) == Host(2, 1024, limits_cpus=False)
    assert "last line" in why_unreachable("first line\nlast line")


def test_what_befell_a_service_by_itself_is_said() -> None:
    said = list(mishaps(["a", "b", "c"], "0 false\n3 false\n0 true\n"))
    assert said == ["b ended by itself, and Docker started it again, 3 times", "c ran out of memory"]


def test_folders_have_fleets_of_their_own_and_the_same_folder_the_same() -> None:
    assert FleetNames.of(Path("/a/run")) == FleetNames.of(Path("/a/run")) != FleetNames.of(Path("/b/run"))
