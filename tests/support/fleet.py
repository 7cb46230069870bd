"""The fleet that every coordinator and device of the tests belongs to."""

FLEET = "testfleet"
SHARD = "0"
