"""Whether a link is metered: what NetworkManager says counts; without it, a modem does, and all else is unknown."""

import pytest

from edge_agent.shell.host import network

ROUTES = """Iface	Destination	Gateway 	Flags
eth1	0001A8C0	00000000	0001
{}	00000000	0101A8C0	0003
"""


@pytest.fixture
def route(tmp_path, monkeypatch):
    """A machine whose default route goes over an interface, and where busctl prints something."""

    def make(interface: str, uevent: str = "", said: str = "") -> bool | None:
        (tmp_path / "route").write_text(ROUTES.format(interface))
        (tmp_path / interface).mkdir()
        (tmp_path / interface / "uevent").write_text(uevent)
        monkeypatch.setattr(network, "ASKED", ("echo", said) if said else ("no-such-command",))
        return network.metered(tmp_path / "route", tmp_path)

    return make


@pytest.mark.parametrize(("said", "metered"), [("u 1", True), ("u 2", False), ("u 3", True), ("u 4", False)])
def test_network_manager_is_believed_whatever_the_interface(route, said, metered):
    assert route("wwan0", said=said) is metered


@pytest.mark.parametrize("said", ["u 0", "u 99", "b true", "Failed"])
def test_what_network_manager_can_not_tell_is_looked_for_in_the_interface(route, said):
    assert route("ppp0", said=said) is True


@pytest.mark.parametrize(
    ("interface", "uevent", "metered"),
    [
        ("wwan0", "", True),
        ("ppp0", "", True),
        ("usb0", "INTERFACE=usb0\nDEVTYPE=wwan\n", True),
        ("eth0", "INTERFACE=eth0\n", None),
        ("wlan0", "DEVTYPE=wlan\n", None),
    ],
)
def test_modem_is_metered_and_other_links_are_unknown(route, interface, uevent, metered):
    assert route(interface, uevent) is metered


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"Iface\n\n"])
def test_machine_without_a_default_route_can_not_tell(tmp_path, monkeypatch, content):
    monkeypatch.setattr(network, "ASKED", ("false",))
    if content is not None:
        (tmp_path / "route").write_bytes(content)
    assert network.metered(tmp_path / "route", tmp_path) is None
