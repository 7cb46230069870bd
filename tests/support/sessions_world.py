"""Devices, helpers and the relay between them, over a wire that loses, repeats, reorders and forges. No clock but its
own.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import OfferedTask
from fleet_protocol.limits import BOOT_SHIFT
from fleet_protocol.sessions.device_end import DeviceEnd
from fleet_protocol.sessions.events import Answered, Asked, DeviceEvent, Requested, Wanted
from fleet_protocol.sessions.frames import is_frame, session_of
from fleet_protocol.sessions.helper_sessions import HelperSessions
from fleet_protocol.sessions.lifecycle import State
from fleet_protocol.sessions.party import Party
from session_relay.relay.core.directory import Directory, ServedTask
from session_relay.relay.core.relay import Relay

FLEET, SHARD, TASK = "home", "0", "digits"
BUNDLE = bytes(range(32))
WANTED = Wanted(TASK, BUNDLE, "middle", 3)
OFFERED = OfferedTask(TASK, BUNDLE)
SERVED = ServedTask(BUNDLE, 0, 0, frozenset({"middle"}))
COORDINATOR = SigningKey(bytes(range(32)))


def answer_to(request: bytes) -> bytes:
    """What every helper makes of a request."""
    return request[::-1] + b"!"


def _randomness(seed: str) -> Callable[[int], bytes]:
    """Bytes that nobody else has, the same in every run."""
    drawn = count()
    return lambda size: hashlib.shake_128(f"{seed} {next(drawn)}".encode()).digest(size)


@dataclass(frozen=True)
class Packet:
    """On its way: from a device or helper to the relay, or from the relay to one."""

    topic: str
    data: bytes


class Machine:
    """A name and a key that outlive the process, and the process's boot number."""

    shard = SHARD

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.key = name, SigningKey(bytes([seed]) * 32)
        self._boot = 0
        self.restart()

    def restart(self) -> None:
        """Forget everything in memory."""
        self._boot += 1
        self.randomness = _randomness(f"{self.name} {self._boot}")
        numbers = count(self._boot << BOOT_SHIFT)
        self.party = Party(FLEET, self.shard, self.name, self.key, COORDINATOR.verify_key, lambda: next(numbers))


class Device(Machine):
    """Has one session at a time, and remembers all requests that it ever sent."""

    end: DeviceEnd | None = None

    def __init__(self, name: str, seed: int) -> None:
        self.sent: dict[tuple[bytes, int], bytes] = {}
        self.answered: dict[tuple[bytes, int], bytes] = {}
        self.events: list[DeviceEvent] = []
        super().__init__(name, seed)

    def restart(self) -> None:
        super().restart()
        self.end = None

    def open(self, now: float, wanted: Wanted = WANTED) -> bytes:
        """Begin another session; returns its name."""
        self.end = DeviceEnd(self.party, wanted, self.randomness, now)
        self.events = []
        return self.end.session

    def request(self, message: bytes) -> None:
        number = self.end.request(message)
        self.sent[self.end.session, number] = message

    def take(self, events: list[DeviceEvent]) -> None:
        self.events += events
        for event in events:
            if isinstance(event, Answered):
                place = self.end.session, event.number
                assert place not in self.answered, "an answer is handed up once"
                assert event.message == answer_to(self.sent[place])
                self.answered[place] = event.message


class Helper(Machine):
    """Grants what it is asked for; its requests wait until they are answered."""

    def __init__(self, name: str, seed: int) -> None:
        self.handed: dict[tuple[bytes, int], bytes] = {}
        super().__init__(name, seed)

    def restart(self) -> None:
        super().restart()
        self.sessions = HelperSessions(self.party, self.randomness)
        self.waiting: list[Requested] = []

    def take(self, events: list, now: float) -> None:
        for event in events:
            if isinstance(event, Asked):
                self.sessions.grant(event.session, now)
            if isinstance(event, Requested):
                place = event.session, event.number
                assert place not in self.handed, "a request is handed up once"
                self.handed[place] = event.message
                self.waiting.append(event)

    def answer(self, at: int) -> None:
        request = self.waiting.pop(at)
        self.sessions.answer(request.session, request.number, answer_to(request.message))


@dataclass
class World:
    """All of them; `wire` is what is on its way."""

    devices: list[Device] = field(default_factory=lambda: [Device("kitchen-pi", 40), Device("shed-pi", 41)])
    helpers: list[Helper] = field(default_factory=lambda: [Helper("gateway", 50), Helper("tower", 51)])
    now: float = 1000.0
    wire: list[Packet] = field(default_factory=list)
    seen: list[Packet] = field(default_factory=list)
    """Everything that ever was on the wire."""
    ends: dict[bytes, set[str]] = field(default_factory=dict)
    """The names that may hear of a session."""

    def __post_init__(self) -> None:
        for helper in self.helpers:
            helper.sessions.offer([OFFERED], 4, self.now)
        self.start_relay()

    @property
    def machines(self) -> list[Machine]:
        return [*self.devices, *self.helpers]

    def directory(self) -> Directory:
        keys = {each.name: each.key.verify_key for each in self.machines}
        return Directory(keys, frozenset(each.name for each in self.helpers), {TASK: SERVED})

    def start_relay(self) -> None:
        """A relay that remembers nothing."""
        self.relay = Relay(COORDINATOR, FLEET, [SHARD], self.directory())

    def open(self, device: Device, wanted: Wanted = WANTED) -> None:
        session = device.open(self.now, wanted)
        self.ends[session] = {device.name, *(each.name for each in self.helpers)}

    def restart_helper(self, helper: Helper) -> None:
        helper.restart()
        helper.sessions.offer([OFFERED], 4, self.now)

    def turn(self) -> None:
        """Everybody publishes what is due."""
        for device in self.devices:
            if device.end:
                device.take(device.end.pass_time(self.now))
                self._publish(device, device.end.outgoing(self.now))
        for helper in self.helpers:
            helper.take(helper.sessions.pass_time(self.now), self.now)
            self._publish(helper, helper.sessions.outgoing(self.now))
        self.relay.pass_time(self.now)
        while self.relay.control_waits:
            control = self.relay.next_control()
            self._put(Packet(control.topic, control.data))
        for frame in self.relay.next_frames(10_000_000):
            self._put(Packet(frame.topic, frame.data))

    def _publish(self, machine: Machine, outgoing: list) -> None:
        for each in outgoing:
            self._put(Packet(machine.party.topic, each.data))

    def _put(self, packet: Packet) -> None:
        name, leaf = topics.device_of(packet.topic)
        if leaf == "relayed" and is_frame(packet.data):
            assert name in self.ends[session_of(packet.data)], "a frame goes to an end of its session alone"
        self.wire.append(packet)
        self.seen.append(packet)

    def deliver(self, packet: Packet) -> None:
        """Whoever listens on the topic has it; what is forged or altered is refused, and nothing more."""
        name, leaf = topics.device_of(packet.topic)
        try:
            if leaf == "session":
                self.relay.receive(packet.topic, packet.data, self.now)
                return
            receiver = next((each for each in self.machines if each.name == name), None)
            if isinstance(receiver, Helper):
                receiver.take(receiver.sessions.receive(packet.data, self.now), self.now)
            elif isinstance(receiver, Device) and receiver.end:
                receiver.take(receiver.end.receive(packet.data, self.now))
        except ProtocolError:
            pass

    def settle(self, seconds: float) -> None:
        """So long, nothing is lost, and every request is answered at once."""
        until = self.now + seconds
        while self.now < until:
            self.turn()
            while self.wire:
                self.deliver(self.wire.pop(0))
                for helper in self.helpers:
                    while helper.waiting:
                        helper.answer(0)
                if not self.wire:
                    self.turn()
            deadlines = [each.end.deadline for each in self.devices if each.end and each.end.deadline]
            deadlines += [each.sessions.deadline for each in self.helpers]
            self.now = max(self.now + 0.25, min([*deadlines, until]))

    def is_settled(self, device: Device) -> bool:
        """Whether its session is over, or goes on with every request answered."""
        if device.end is None or device.end.state is State.CLOSED:
            return True
        own = {place for place in device.sent if place[0] == device.end.session}
        return device.end.state is State.OPEN and own <= device.answered.keys()
