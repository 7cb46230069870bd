"""Boot numbers of an agent: it starts, signs and counts on, whatever a receipt tells, and wherever it moves."""

import pytest

from broker_coordinator.distribution.signed_messages import MessageSigner
from edge_agent.configuration import AgentConfiguration, load_configuration
from edge_agent.shell.agent import Agent
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import LinkLeftError
from fleet_protocol import topics
from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey, write_signing_key, write_verify_key
from fleet_protocol.kinds import BLOB_REQUEST, Presence, decode_payload
from fleet_protocol.limits import BOOT_SHIFT, MAX_BOOT, MAX_CONTROL_BYTES, MAX_SEQUENCE
from tests.support.fleet import FLEET, SHARD

COORDINATOR, DEVICE = SigningKey.generate(), SigningKey.generate()
PINNED = write_verify_key(COORDINATOR.verify_key)


@pytest.fixture
def configuration(tmp_path) -> AgentConfiguration:
    (tmp_path / "device.key").touch(mode=0o600)
    (tmp_path / "device.key").write_text(write_signing_key(DEVICE))
    (tmp_path / "agent.toml").write_text(
        f'fleet = "{FLEET}"\ndevice = "kitchen-pi"\nkey_file = "device.key"\ncoordinator_key = "{PINNED}"\n'
        'state_folder = "state"\nsample_socket = "samples.sock"\n[broker]\nhost = "localhost"\n'
        '[[tasks]]\nname = "digits"\ntrigger = { new_samples = 4 }\n'
    )
    return load_configuration(tmp_path / "agent.toml")


class StartedAgent(Agent):
    """An agent without a connection, to which a coordinator's answer to its enrolment can be given."""

    def __init__(self, configuration: AgentConfiguration) -> None:
        self.identity = Identity(FLEET, SHARD, "kitchen-pi", DEVICE, PINNED)
        super().__init__(configuration, self.identity, "test 1.0")

    def enrol(self) -> bytes:
        """Send an enrolment, as it were."""
        sent = digest(self.member._sign_enrolment())
        self.member._enrolment._attempts.sent(sent)
        return sent

    def answer(self, sent: bytes, newest_boot: int, reason: Reason = Reason.UNKNOWN_KEY) -> None:
        """The receipt of something that was sent."""
        receipt = MessageSigner(COORDINATOR, FLEET, SHARD).receipt(
            "kitchen-pi", sent, reason=reason, detail="", highest_sequence=0, newest_boot=newest_boot
        )
        self.member._inbox.handle(receipt.topic, receipt.data)

    def close(self) -> None:
        self._samples.close()
        self._database.close()


@pytest.mark.parametrize(
    ("newest_boot", "boot", "after_start"),
    [
        (MAX_BOOT - 2, MAX_BOOT - 1, MAX_BOOT),
        (MAX_BOOT - 1, MAX_BOOT, MAX_BOOT),
        (MAX_BOOT, MAX_BOOT, MAX_BOOT),
        (MAX_BOOT + 1, None, None),
        (MAX_SEQUENCE, None, None),
    ],
)
async def test_boot_number_of_a_receipt_never_mutes_the_agent(
    configuration, caplog, newest_boot, boot, after_start
) -> None:
    agent = StartedAgent(configuration)
    first = agent.identity.boot
    agent.answer(agent.enrol(), newest_boot)
    assert agent.identity.boot == (boot or first)
    assert caplog.text.count("event=receipt_number_ignored") == (boot is None)
    agent.close()
    for number in (1, 2):
        agent = StartedAgent(configuration)
        assert agent.identity.boot == (after_start or first + number)
        request = read_envelope(agent.identity.sign_control(BLOB_REQUEST, b""), MAX_CONTROL_BYTES)
        assert request.header.sequence >> BOOT_SHIFT == agent.identity.boot
        agent.close()


async def test_agent_continues_once_where_its_newest_number_was_used_and_not_where_a_message_came_twice(
    configuration, caplog
) -> None:
    agent = StartedAgent(configuration)
    first = agent.identity.boot
    older, newest = agent.enrol(), agent.enrol()
    agent.answer(older, first, Reason.SEQUENCE_REUSED)
    agent.answer(bytes(16), first + 9, Reason.SEQUENCE_REUSED)
    assert agent.identity.boot == first
    for _ in range(2):
        agent.answer(newest, first, Reason.SEQUENCE_REUSED)
    assert agent.identity.boot == first + 1
    assert caplog.text.count("event=state_lost") == 1
    agent.close()


async def test_agent_that_moves_is_at_another_boot_than_the_last_will_that_it_leaves_behind(configuration) -> None:
    agent = StartedAgent(configuration)
    left_behind = presence(agent)
    agent.member._shard.hear(["elsewhere"])
    with pytest.raises(LinkLeftError):
        await agent.member._shard.keep()
    assert agent.member.link.last_will[0] == topics.state(FLEET, "elsewhere", "kitchen-pi")
    assert presence(agent).boot == agent.identity.boot == left_behind.boot + 1
    agent.close()


def presence(agent: StartedAgent) -> Presence:
    return decode_payload(read_envelope(agent.member.link.last_will[1], MAX_CONTROL_BYTES).payload, Presence)
