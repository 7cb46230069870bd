"""What a simulation's state is made of: the classes, actions and fields that a checkpoint holds.

What a prepared simulation has anyway, and no run changes, is not written: the task, the fleet's conditions, the
workload, the keys.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

import msgspec
from nacl.signing import VerifyKey

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.fleet_view import Decided, Device, DeviceState, TaskProgress
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.admission.participation import Participation
from broker_coordinator.admission.shares import RecentDevices
from broker_coordinator.aggregation.averaging import RecentVersions
from broker_coordinator.aggregation.block_weights import BlockLayout, BlockWeights
from broker_coordinator.aggregation.buffer_size import Held, Participants
from broker_coordinator.aggregation.clusters import Pull
from broker_coordinator.aggregation.collapse import Level, Seen, Watch
from broker_coordinator.aggregation.contribution import BufferedUpdate, Contribution
from broker_coordinator.aggregation.device_privacy.version_noise import NoiseSeries, VersionNoise
from broker_coordinator.aggregation.harm import Harm, Share
from broker_coordinator.aggregation.quarantine import Quarantine, Sent
from broker_coordinator.aggregation.selection import Told, Utilities
from broker_coordinator.aggregation.selection_pace import SelectionPace
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.base_mean import Began
from broker_coordinator.aggregation.strategies.ef21 import Estimate
from broker_coordinator.aggregation.strategies.posterior import Kept
from broker_coordinator.aggregation.verdicts import Verdict, Verdicts
from broker_coordinator.aggregation.version import Version
from broker_coordinator.consumers.feature_statistics import FeatureStatisticsFacts, LastNumbers
from broker_coordinator.consumers.peers import Declared, Peers
from broker_coordinator.consumers.statistics import StatisticsFacts
from broker_coordinator.consumers.update import UpdateFacts
from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.serving.answers import RecentReceipts
from broker_coordinator.serving.waiting import WaitingPayload
from broker_coordinator.storage.records import Aggregate
from edge_agent.core.delivery import Delivery, DeliverySchedule, Retry
from edge_agent.core.enrolment import EnrolmentAttempts
from edge_agent.core.growing_waits import GrowingWaits, Wait
from edge_agent.core.guards import GuardSettings
from edge_agent.core.lifecycle import Lifecycle, State
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.own_updates import OwnUpdates
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.round_decisions import RoundDecisions, StartingPoint
from edge_agent.core.selection import RoundFigures
from edge_agent.core.triggers import Condition, Trigger
from edge_agent.core.turns import Turns
from edge_agent.core.version_choice import KnownVersion
from edge_agent.producers import goes_back
from edge_agent.worker.contract import Returned
from fleet_host.rate_limit import RateLimit, TokenBucket
from fleet_protocol.codec import ClassStatistics, Moments, SparseUpdate
from fleet_protocol.cohort import RoundDraws
from fleet_protocol.envelope import Envelope, Header
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import KINDS, Manifest, PresenceState, Selection
from workbench.simulation.checkpoint.graph import Fields, Named, Spelling, Vocabulary
from workbench.simulation.conditions import Conditions, FleetMember
from workbench.simulation.coordinator import SimulatedCoordinator
from workbench.simulation.device.agent import TRIGGER, SimulatedAgent
from workbench.simulation.device.manifest_listener import SimulatedListener
from workbench.simulation.device.permits import RoundPermits
from workbench.simulation.device.postbox import SimulatedPostbox
from workbench.simulation.device.power import Power
from workbench.simulation.device.rounds import SimulatedRounds
from workbench.simulation.device.version_follower import SimulatedVersionFollower
from workbench.simulation.device_memory import DeviceMemory
from workbench.simulation.fleet import SimulatedFleet
from workbench.simulation.ledger import Count, Ledger, Point
from workbench.simulation.messages import PlainEnd, SignedEnd, device_number
from workbench.simulation.outcomes import Outcomes
from workbench.simulation.own_payloads import OwnPayload
from workbench.simulation.round_job import RoundJob
from workbench.simulation.simulation import Simulation
from workbench.simulation.wake_policies import WakeConcurrently, WakeInRounds, WakeOnSamples
from workbench.simulation.world import PublishedVersion, SimulatedWorld

CLASSES: Final = (
    Aggregate,
    Began,
    BlockLayout,
    BlockWeights,
    BufferedUpdate,
    ClassStatistics,
    Condition,
    Contribution,
    Count,
    Decided,
    Declared,
    Delivery,
    DeliverySchedule,
    DeviceMemory,
    DeviceState,
    EnrolmentAttempts,
    Envelope,
    Estimate,
    Kept,
    FeatureStatisticsFacts,
    FleetMember,
    GrowingWaits,
    Harm,
    Header,
    Held,
    KnownVersion,
    LastNumbers,
    Ledger,
    Level,
    Lifecycle,
    Manifest,
    Message,
    Moments,
    NoiseSeries,
    OutboxRow,
    Outcomes,
    OwnUpdates,
    ParsedMessage,
    Participants,
    Participation,
    Peers,
    PlainEnd,
    Point,
    Power,
    PresenceState,
    Publication,
    PublishedVersion,
    Quarantine,
    Pull,
    RateLimit,
    Reason,
    RecentDevices,
    RecentReceipts,
    RecentVersions,
    Retry,
    Returned,
    RoundDecisions,
    RoundDraws,
    RoundFigures,
    RoundJob,
    RoundPermits,
    Seen,
    Selection,
    SelectionPace,
    Sent,
    ServerState,
    Share,
    SimulatedAgent,
    SimulatedListener,
    SimulatedPostbox,
    SimulatedRounds,
    SimulatedVersionFollower,
    SparseUpdate,
    StartingPoint,
    State,
    StatisticsFacts,
    TaskProgress,
    TokenBucket,
    Told,
    Trigger,
    Turns,
    UpdateFacts,
    Utilities,
    Verdict,
    Verdicts,
    Version,
    VersionNoise,
    Wait,
    WaitingPayload,
    Watch,
)

ACTIONS: Final = frozenset(
    {
        (Simulation, "_power_on"),
        (SimulatedAgent, "_act"),
        (SimulatedAgent, "_fetched"),
        (SimulatedAgent, "_hear_of_version"),
        (SimulatedAgent, "_heard_of_version"),
        (SimulatedAgent, "_recheck_due"),
        (SimulatedAgent, "_train"),
        (SimulatedCoordinator, "make_scale"),
        (SimulatedFleet, "_put_back"),
        (SimulatedPostbox, "_act"),
        (SimulatedPostbox, "_deliver_as_planned"),
        (SimulatedPostbox, "_enrol"),
        (SimulatedWorld, "_arrive"),
        (SimulatedWorld, "_deliver"),
        (SimulatedWorld, "_round_over"),
        (PlainEnd, "sign_row"),
        (SignedEnd, "sign_row"),
    }
)
"""What may be planned, or is called back."""

KEPT: Final[Mapping[str, Fields]] = {
    "": ("_began", "_history", "_reached"),
    "_world": ("_manifest_bytes", "_newest", "_scale_deadline", "jobs", "ledger", "listening"),
    "_world.queue": (
        "_buckets",
        "_heap",
        "_next_buckets",
        "_opened",
        "_order",
        "_orders",
        "_stopped",
        "_times",
        "now",
    ),
    "_world.residuals": ("_states",),
    "_world._plain": (
        "_files",
        "_kinds",
        "_ledger",
        "_looked",
        "_position",
        "_pulls",
        "_recent",
        "_states",
        "_weights",
    ),
    "_world._plain._awaited": ("_looked_at", "_next_look", "began", "newest", "waiting"),
    "_world._plain._receipts": ("_unverified", "recent"),
    "_world._plain._served": (
        "_selected",
        "asks_everyone",
        "began",
        "draws",
        "first_version",
        "generation",
        "harm",
        "newest",
        "noise",
        "participants",
        "participations",
        "paused",
        "quarantine",
        "senders",
        "state",
        "utilities",
        "waiting",
        "wanted_version",
        "watch",
    ),
    "_world._plain._view": (
        "clusters",
        "cohorts",
        "decided",
        "devices",
        "full_at",
        "helpers",
        "highest_sequences",
        "invitations",
        "key_of",
        "memories",
        "now",
        "numbers",
        "participations",
        "pending",
        "queries",
        "recent",
        "tasks",
    ),
    "_fleet": ("_awake",),
    "_fleet._sleepers": (
        "_boots",
        "_figures",
        "_floats",
        "_has_heard",
        "_integers",
        "_is_enrolled",
        "_is_on",
        "_thresholds",
        "_turns",
        "_versions",
        "_will_crash",
    ),
}
"""By where they are found in a simulation, the objects that a prepared one has too, and what a run changes in them."""

OF_WAKE_POLICIES: Final[Mapping[type, Fields]] = {
    WakeConcurrently: ("_agents", "_training"),
    WakeInRounds: ("_agents", "_begun", "_training"),
    WakeOnSamples: ("_awaited", "_counted_at"),
}

THE_SAME: Final = ("_bundle.description", "_world.task", "_world.generator")
"""What is referred to, and not written."""


SETTINGS: Final = (Conditions, GuardSettings, PrivacySettings)
"""Written as settings are, so that reading checks them."""


def _as_settings(kind: type) -> Spelling:
    return Spelling(lambda each: (msgspec.msgpack.encode(each),), lambda data: msgspec.msgpack.decode(data, type=kind))


def _fields_of_device(device: Device) -> tuple[Any, ...]:
    """Plain values alone: a large fleet has nothing so often."""
    return (
        device.name,
        bytes(device.public_key),
        device.state.value,
        device.profile,
        device.software,
        device.presence.value,
        device.boot,
        device.request_sequence,
    )


def _device(name: str, key: bytes, state: str, *others: Any) -> Device:
    profile, software, presence, *numbers = others
    return Device(name, VerifyKey(key), DeviceState(state), profile, software, PresenceState(presence), *numbers)


def vocabulary_of(simulation: Simulation) -> Vocabulary:
    """What the state of a simulation may hold; its devices' keys follow from their numbers."""
    end = attrgetter("_fleet._end")(simulation)

    def signed_end(device: str, boot: int) -> Any:
        found = end(device_number(device))
        found.boot = boot
        return found

    spellings: dict[type, Spelling] = {
        **{kind: _as_settings(kind) for kind in SETTINGS},
        Device: Spelling(_fields_of_device, _device),
        OwnPayload: Spelling(lambda each: (bytes(each),), bytes),
        VerifyKey: Spelling(lambda key: (bytes(key),), VerifyKey),
        SignedEnd: Spelling(lambda each: (each.device, each.boot), signed_end),
    }
    return Vocabulary(CLASSES, ACTIONS, (goes_back,), spellings)


def named_in(simulation: Simulation) -> Named:
    """The objects that every simulation with the same options has."""
    kept = {path: attrgetter(path)(simulation) if path else simulation for path in KEPT}
    policy = attrgetter("_fleet._wake_policy")(simulation)
    same = [attrgetter(path)(simulation) for path in THE_SAME]
    fields = dict(enumerate(KEPT.values())) | {len(kept): OF_WAKE_POLICIES.get(type(policy), ())}
    return Named([*kept.values(), policy, *same, TRIGGER, *KINDS.values()], fields)
