"""A device that asks a managed server's relay for a session of a bundle that there is not, and hears so."""

import os
import queue
from itertools import count

from fleet_protocol.keys import SigningKey
from fleet_protocol.sessions.device_end import DeviceEnd
from fleet_protocol.sessions.events import Refused, Wanted
from fleet_protocol.sessions.party import Party
from tests.support.managed_server import Server
from tests.support.waiting import DEADLINE_SECONDS, until


def ask_relay(server: Server, name: str, key: SigningKey) -> str:
    """Ask for a session of the task `tiny`; returns the reason of the refusal."""
    numbers = count(1)
    party = Party("home", "0", name, key, server.key.verify_key, lambda: next(numbers))
    end = DeviceEnd(party, Wanted("tiny", bytes(32), "middle", 0), os.urandom, 0.0)
    client, heard = server.connect(server.device_login(name, key)), queue.SimpleQueue[bytes]()
    client.on_message = lambda _client, _, message: heard.put(message.payload)
    client.on_subscribe = lambda *_: client.publish(party.topic, end.outgoing(0.0)[0].data, qos=1)
    until(client.is_connected, "it is connected")
    client.subscribe(party.relayed, qos=1)
    (refused,) = end.receive(heard.get(timeout=DEADLINE_SECONDS), 0.0)
    client.disconnect()
    client.loop_stop()
    assert isinstance(refused, Refused)
    return refused.reason
