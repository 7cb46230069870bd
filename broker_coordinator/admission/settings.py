"""What admission is told: who may enrol, how much each device may send, and the place in the topics."""

from dataclasses import dataclass

from fleet_host.rate_limit import UNLIMITED, TokenBucket
from fleet_protocol.keys import SigningKey


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """As in `configuration.CoordinatorConfiguration`. `key` decrypts payloads; `allowance` is how many
    journalled payloads each device may send.
    """

    fleet: str
    shard: str
    open_enrolment: bool
    maximum_devices: int
    key: SigningKey | None = None
    allowance: TokenBucket = UNLIMITED
