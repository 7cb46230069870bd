"""From `setup` to an applied update, and what the broker that `setup` configures lets each account do."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from broker_coordinator.admission.decisions import Message
from broker_coordinator.cli import main as coordinator_main
from broker_coordinator.configuration import load_configuration
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.journal import Journal
from edge_agent.cli import main as agent_main
from edge_agent.shell.connection.identity import Identity
from fleet_host.key_files import make_key_file, read_key_file
from fleet_protocol.broker_accounts import client_identifier
from fleet_protocol.device_invitation import DeviceInvitation, prove_invitation, read_invitation, write_invitation
from fleet_protocol.keys import SigningKey, key_id, write_verify_key
from fleet_protocol.kinds import ENROLMENT, Enrolment, SessionReason, encode_payload
from tests.support.agent import copy_digits_bundle
from tests.support.asked_relay import ask_relay
from tests.support.bundles import THREE_BLOCKS, write_bundle
from tests.support.in_process import program
from tests.support.managed_server import JoinedAgent, RefusedError, Server, running_server
from tests.support.waiting import DEADLINE_SECONDS, until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def up(device: str) -> str:
    return f"edgeflock/v1/home/0/{device}/up"


def down(device: str) -> str:
    return f"edgeflock/v1/home/0/{device}/down"


def test_a_fleet_from_setup_to_an_applied_update_takes_one_command_on_the_device(
    server: Server, tmp_path: Path
) -> None:
    copy_digits_bundle(tmp_path / "bundle", buffer_size=1)
    server.tasks("publish", str(tmp_path / "bundle"))
    joined = server.join(server.invite("kitchen-pi"), tmp_path / "device")
    assert joined.returncode == 0, joined.stderr
    assert {each["name"]: each["state"] for each in server.devices("list")}["kitchen-pi"] == "approved"
    agent = JoinedAgent(tmp_path / "device", "kitchen-pi")
    agent.start()
    agent.feed(40)
    until(lambda: server.tasks("list")[0]["version"] > 0, "a version with the update", seconds=DEADLINE_SECONDS)
    assert agent.stop() == 0
    again = server.join(server.invite("kitchen-pi", "--again"), tmp_path / "device")
    assert (again.returncode, "already" in again.stdout) == (0, True)


def test_a_device_that_is_approved_by_hand_gets_its_account_without_anything_being_sent(
    server: Server, tmp_path: Path
) -> None:
    printed = program(coordinator_main, "--config", server.configuration, "key").stdout.split()
    key, authority = (printed[printed.index(word) + 1] for word in ("key", "authority"))
    file = tmp_path / "device" / "agent.toml"
    options = ["--device", "loft-pi", "--broker", "localhost", "--port", str(server.port), "--coordinator-key", key]
    where = ("--config", str(file), "setup", *options, "--authority")
    for wrong, said in (("ab" * 32, "none has the fingerprint abab"), ("abc", "expected 64 hex digits")):
        refused = program(agent_main, *where, wrong)
        assert (refused.returncode, said in refused.stderr, file.parent.exists()) == (2, True, False)
    done = program(agent_main, *where, authority)
    assert done.returncode == 0, done.stderr
    text = file.read_text().replace("/var/lib/edge-agent", f"{tmp_path}/device/state")
    file.unlink()
    file.write_text(text.replace("/run/edge-agent", f"{tmp_path}/device"))
    command = done.stdout[done.stdout.index("devices approve") :].split()
    server.devices(*command[1:])
    agent = JoinedAgent(tmp_path / "device", "loft-pi")
    agent.start()
    until(lambda: "event=enrolled" in agent.log(), "it takes part")
    assert agent.stop() == 0


def test_a_device_speaks_and_listens_on_its_own_topics_alone_and_ends_nobody_elses_session(server: Server) -> None:
    attic, cellar = (server.device_login(name, server.admit(name)) for name in ("attic-pi", "cellar-pi"))
    assert server.may_publish(attic, up("attic-pi"))
    assert server.may_subscribe(attic, down("attic-pi"))
    assert server.may_subscribe(attic, "edgeflock/v1/home/task/+")
    session, relayed = (f"edgeflock/v1/home/0/attic-pi/{leaf}" for leaf in ("session", "relayed"))
    others = "edgeflock/v1/home/0/cellar-pi"
    assert server.may_publish(attic, session)
    assert server.may_subscribe(attic, relayed)
    for topic in (session, f"{others}/relayed", f"{others}/session"):
        assert not server.may_subscribe(attic, topic), topic
    for topic in (relayed, f"{others}/session", f"{others}/relayed"):
        assert not server.may_publish(attic, topic), topic
    for topic in (up("cellar-pi"), down("attic-pi"), down("cellar-pi"), "edgeflock/v1/home/task/digits"):
        assert not server.may_publish(attic, topic), topic
    stolen = ("$share/all/edgeflock/v1/home/0/+/up", f"$share/all/{down('cellar-pi')}")
    for topic in ("#", up("attic-pi"), down("cellar-pi"), "edgeflock/v1/home/0/+/down", "$SYS/#", *stolen):
        assert not server.may_subscribe(attic, topic), topic
    for control in ("$CONTROL/dynamic-security/v1", "$CONTROL/dynamic-security/v1/response"):
        assert not server.may_publish(attic, control)
        assert not server.may_subscribe(attic, control)
    identifier = attic.index("-i") + 1
    assert server.may_connect(cellar)
    for stolen in (client_identifier("home", "cellar-pi"), "coordinator-home-0", "any"):
        assert not server.may_connect([*attic[:identifier], stolen])


def test_relay_hears_and_is_heard_under_the_coordinators_account(server: Server, tmp_path: Path) -> None:
    key = server.admit("dock-pi")
    write_bundle(tmp_path / "cut", split=THREE_BLOCKS)
    server.tasks("publish", str(tmp_path / "cut"))
    until(lambda: "relay_connected" in server.log(), "the relay has subscribed")
    assert ask_relay(server, "dock-pi", key) == SessionReason.WRONG_BUNDLE
    assert "subscription_refused" not in server.log()
    server.tasks("remove", "tiny")
    until(lambda: "relay_stopped" in server.log(), "without cuts there is no relay")


def test_a_device_can_neither_enrol_a_second_key_nor_another_device_nor_leave_a_will_for_it(server: Server) -> None:
    key, other = server.admit("nest-pi"), server.admit("coop-pi")
    nest = server.device_login("nest-pi", key)
    second = Identity("home", "0", "nest-pi", SigningKey.generate(), write_verify_key(server.key.verify_key))
    enrolment = encode_payload(Enrolment(second.public_key, "generic", "test", []))
    before = server.refusals()
    server.publish(nest, up("nest-pi"), second.sign_control(ENROLMENT, enrolment))
    until(lambda: server.refusals() > before, "it is refused")
    until(lambda: "is bound to another key" in server.log(), "and that is why")
    assert len(server.devices("show", "nest-pi")["keys"]) == 1
    third = Identity("home", "0", "roof-pi", SigningKey.generate(), write_verify_key(server.key.verify_key))
    enrolment = encode_payload(Enrolment(third.public_key, "generic", "test", []))
    before = server.refusals()
    server.publish(nest, up("nest-pi"), third.sign_control(ENROLMENT, enrolment))
    until(lambda: server.refusals() > before, "it is refused: the signature is for another topic")
    assert "roof-pi" not in {each["name"] for each in server.devices("list")}
    assert server.may_connect(server.device_login("coop-pi", other))
    assert not server.may_leave_a_will(nest, "edgeflock/v1/home/0/coop-pi/state")
    assert server.may_leave_a_will(nest, "edgeflock/v1/home/0/nest-pi/state")


def test_an_invitation_reaches_the_enrolment_of_its_own_device_alone(server: Server) -> None:
    invitation = read_invitation(server.invite("porch-pi"))
    login = server.guest_login(invitation)
    until(lambda: server.may_connect(login), "the invitation has its account")
    assert server.may_publish(login, up("porch-pi"))
    assert server.may_subscribe(login, down("porch-pi"))
    for topic in (up("attic-pi"), "edgeflock/v1/home/0/porch-pi/state", "$CONTROL/dynamic-security/v1"):
        assert not server.may_publish(login, topic), topic
    for topic in (down("attic-pi"), "edgeflock/v1/home/task/+", "edgeflock/v1/home/0/+/down", "#"):
        assert not server.may_subscribe(login, topic), topic
    server.devices("withdraw", "porch-pi")
    until(lambda: not server.may_connect(login), "a withdrawn invitation has no account")


def test_without_an_account_nobody_gets_in(server: Server) -> None:
    key = SigningKey.generate()
    assert not server.may_connect(server.device_login("kitchen-pi", key))
    assert not server.may_connect(server.login("broker-coordinator", key, "coordinator-home-0"))
    anonymous = server.device_login("kitchen-pi", key)
    del anonymous[anonymous.index("-u") : anonymous.index("-i")]
    assert not server.may_connect(anonymous)


def test_an_invitation_admits_one_device_and_a_second_one_is_shown_to_the_operator(
    server: Server, tmp_path: Path
) -> None:
    line = server.invite("shed-pi")
    assert server.join(line, tmp_path / "first").returncode == 0
    copied = server.join(line, tmp_path / "second", wait="0")
    assert copied.returncode == 2
    assert "is spent" in copied.stderr
    assert not (tmp_path / "second" / "agent.toml").exists()
    shown = next(each for each in server.devices("invitations") if each["device"] == "shed-pi")
    assert (shown["state"], shown["refused"] > 0) == ("spent", True)
    listed = next(each for each in server.devices("list") if each["name"] == "shed-pi")
    assert "enrolments refused: invitation" in listed["note"]
    assert "bad_invitation" in server.log()


def test_an_invitation_of_another_fleet_is_told_from_one_of_this(server: Server, tmp_path: Path) -> None:
    invitation = read_invitation(server.invite("pond-pi"))
    for changed, said in (
        ({"authority": bytes(32)}, "none has the fingerprint 0000000000000000"),
        ({"coordinator_key": bytes(SigningKey.generate().verify_key)}, "the broker does not know this invitation"),
        ({"token": bytes(16)}, "the broker does not know this invitation"),
        ({"host": "127.0.0.1"}, "not valid for '127.0.0.1'.; compare the clock with the server's, and the name"),
    ):
        foreign = write_invitation(msgspec.structs.replace(invitation, **changed))
        refused = server.join(foreign, tmp_path / "device", wait="0")
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
        assert {path.name for path in (tmp_path / "device").iterdir()} <= {"agent.key", "ca.crt"}


@pytest.mark.long
def test_a_name_that_is_taken_needs_the_operators_word_to_have_another_key(server: Server, tmp_path: Path) -> None:
    old = server.admit("barn-pi")
    with pytest.raises(RefusedError, match=r"barn-pi is approved already.*--again"):
        server.invite("barn-pi")
    followed = [tmp_path / "made-anew" / "state" / name for name in ("authorities.crt", "coordinator-keys")]
    followed[0].parent.mkdir(parents=True)
    for file in followed:
        file.write_text("what it has followed to in an earlier life")
    joined = server.join(server.invite("barn-pi", "--again"), tmp_path / "made-anew")
    assert joined.returncode == 0, joined.stderr
    assert not any(file.exists() for file in followed), "it trusts what the invitation names"
    until(lambda: not server.may_connect(server.device_login("barn-pi", old)), "the old key's account is gone")
    states = [each["state"] for each in server.devices("show", "barn-pi")["keys"]]
    assert sorted(states) == ["approved", "revoked"]


@pytest.mark.long
def test_a_revoked_device_is_put_off_the_broker_at_once(server: Server) -> None:
    login = server.device_login("lawn-pi", server.admit("lawn-pi"))
    listener = server.connect(login)
    ended: list[object] = []
    listener.on_disconnect = lambda *why: ended.append(why)
    until(listener.is_connected, "the device is connected")
    server.devices("revoke", "lawn-pi")
    until(lambda: ended, "the broker has ended its connection")
    listener.loop_stop()
    until(lambda: not server.may_connect(login), "it can't come back")


def test_coordinator_killed_between_commit_and_answer_admits_the_device_when_it_asks_again(
    server: Server, tmp_path: Path
) -> None:
    line = server.invite("gate-pi")
    invitation = read_invitation(line)
    until(lambda: server.may_connect(server.guest_login(invitation)), "the invitation has its account")
    server.kill()
    device = tmp_path / "device"
    device.mkdir()
    make_key_file(device / "agent.key", "edge-agent")
    commit_without_answer(server, invitation, read_key_file(device / "agent.key", "edge-agent"))
    server.start_serving()
    joined = server.join(line, device)
    assert joined.returncode == 0, joined.stderr


def commit_without_answer(server: Server, invitation: DeviceInvitation, key: SigningKey) -> None:
    """What a coordinator has done that is killed before it publishes anything."""
    configuration = load_configuration(server.configuration)
    journal = Journal.open(configuration.journal())
    keys = configuration.keys()
    coordinator = Coordinator(journal, [], MessageSigner(keys[0], "home", "0"), configuration.admission_settings(keys))
    identity = Identity("home", "0", invitation.device, key, write_verify_key(keys[0].verify_key))
    token = invitation.key()
    proof = prove_invitation(token, identity.up_topic, key.verify_key)
    enrolment = Enrolment(identity.public_key, "generic", "test", [], key_id(token.verify_key), proof)
    signed = identity.sign_control(ENROLMENT, encode_payload(enrolment))
    coordinator.handle([Message(identity.up_topic, signed)], time.monotonic())
    journal.close()


@pytest.mark.long
def test_the_broker_gets_every_account_back_after_it_has_lost_them(server: Server) -> None:
    login = server.device_login("well-pi", server.admit("well-pi"))
    rules = server.folder / "mosquitto-state" / "dynamic-security.json"
    server.broker.kill()
    rules.unlink()
    made = program(
        coordinator_main, "setup", "--host", "localhost", "--port", str(server.port), "--folder", server.folder
    )
    assert made.returncode == 0, made.stderr
    server.broker.start()
    until(lambda: server.may_connect(login), "the device has its account again")
