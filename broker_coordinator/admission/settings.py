"""What admission is told: who may enrol, how much each device may send, and the place in the topics."""

from dataclasses import dataclass

from fleet_host.rate_limit import UNLIMITED, TokenBucket
from fleet_protocol.keys import KeyRing

REPEATS_OF_DEVICE = TokenBucket(2.0, 50)
"""Verified messages that ask for a receipt which the device has had or may not have yet: a payload decided before the
last thousands or before a restart, one above its rate, an enrolment, a request or presence under an old number. An
agent has eight payloads waiting, and sends them every ten seconds at most."""


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """As in `configuration.CoordinatorConfiguration`. `keys` decrypt payloads.

    Of each device: `allowance` is how many journalled payloads it may send, `byte_allowance` how many bytes of them,
    `chunk_allowance` how many chunks of files it may ask for, `repeat_allowance` how often for a receipt again.
    `enrolment_allowance` is how often devices that are not approved may enrol, all together;
    `maximum_pending_devices` of them are kept. `shards` are all that the fleet has; empty where devices stay where they
    are.
    """

    fleet: str
    shard: str
    open_enrolment: bool
    maximum_devices: int
    keys: KeyRing = ()
    allowance: TokenBucket = UNLIMITED
    byte_allowance: TokenBucket = UNLIMITED
    chunk_allowance: TokenBucket = UNLIMITED
    enrolment_allowance: TokenBucket = UNLIMITED
    maximum_pending_devices: int = 1_000
    repeat_allowance: TokenBucket = UNLIMITED
    shards: tuple[str, ...] = ()
