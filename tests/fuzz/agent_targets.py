"""What an agent reads before any signature is looked at: a broker's packets, and lines on the sample socket."""

from pathlib import Path

from edge_agent.sources.schema_check import check_sample, check_unjudged
from fleet_host.mqtt_packets import MalformedPacketError, PacketGate
from fleet_protocol.bundle import parse_description
from fleet_protocol.sample_line import read_sample

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
PIXELS = b",".join([b"0.5"] * DIGITS.input.size)
MAXIMUM_PACKET_BYTES = 20

SAMPLES = [
    b'{"task": "digits", "inputs": [' + PIXELS + b'], "label": 3}',
    b'{"task": "digits", "inputs": [0, NaN, -Infinity, 1e999], "label": [1, 0.5]}',
    b'{"inputs": [], "label": null, "task": "\\ud800"}',
]


def check_packet_gate(data: bytes) -> None:
    """Cut in two anywhere, the same passes, and nothing longer is held; the first byte says where, in which version."""
    stream = data[1:]
    cut = (data[0] >> 1) % (len(stream) + 1) if data else 0
    found = []
    for parts in ([stream], [stream[:cut], stream[cut:]]):
        refused: list[tuple[str, int]] = []
        gate = PacketGate(
            MAXIMUM_PACKET_BYTES,
            mqtt5=bool(data[:1] > b"\x7f"),
            on_too_long=lambda topic, size, refused=refused: refused.append((topic, size)),
        )
        try:
            found.append((b"".join(gate.pass_on(part) for part in parts), refused))
        except MalformedPacketError:
            found.append(None)
    assert found[0] == found[1]


def check_sample_line(data: bytes) -> None:
    """A sample that fits, one that waits for its schema, or one sentence."""
    try:
        sample = read_sample(data)
        check_unjudged(sample)
        inputs, label = check_sample(sample, DIGITS)
    except ValueError as error:
        assert str(error)
        return
    assert len(inputs) == 4 * DIGITS.input.size
    assert label in range(DIGITS.label.classes)
