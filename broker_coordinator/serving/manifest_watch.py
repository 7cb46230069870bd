"""Finds out from the broker whether this database is older than what devices know, and then begins a new generation.

A backup that was restored, or a database made anew, lacks versions of which devices have heard: they would take no
older one, and updates made from those would be refused for ever. The manifest that the broker retains tells: it is
signed by this coordinator's own key, or one that this has followed. Until it has come, or does not come, nothing is
taken in and nothing announced.

Only the first manifest of each task counts for that. Later ones are this coordinator's own; an older one behind a newer
one tells that a process which has lost the lease of the versions has published once more what it knew.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence, Set

from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol import topics
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import KeyRing, key_id
from fleet_protocol.kinds import MANIFEST, Manifest, decode_payload

QUIET_SECONDS = 0.25
"""After the broker has confirmed the subscription, and after each manifest: so long may the next one take. Brokers send
what they retain at once; one that comes later still counts."""

LONGEST_SECONDS = 5.0
"""After that confirmation, whatever comes: nobody who publishes there on and on may keep a fleet waiting."""

logger = logging.getLogger(__name__)


class ManifestWatch:
    """Compares the manifests that come from the broker of `fleet` with the tasks in `registry`.

    `keys` are this coordinator's own, the newest first, and `shards` those that it names to devices. `is_older` is
    called where the database turns out to be. Times are seconds on any one clock.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        keys: KeyRing,
        fleet: str,
        *,
        is_older: Callable[[], object],
        shards: Sequence[str] = (),
    ) -> None:
        self._registry = registry
        self._newest = keys[0].verify_key
        self._keys = {key_id(key.verify_key): key.verify_key for key in keys}
        self._fleet = fleet
        self._is_older = is_older
        self._shards = shards
        self._seen: dict[str, Manifest] = {}
        self._newest_heard: dict[str, Manifest] = {}
        self._checked: set[str] = set()
        self._ends = -math.inf
        self._latest_end = math.inf

    def begin(self) -> None:
        """Wait for manifests from now on."""
        self._ends = math.inf

    def subscribed(self, now: float) -> None:
        """The broker has confirmed the subscription to manifests."""
        if self._ends == math.inf:
            self._ends = now + QUIET_SECONDS
            self._latest_end = now + LONGEST_SECONDS

    def is_waiting(self, now: float) -> bool:
        """Whether a manifest may still be on its way."""
        return now < self._ends

    def ends(self) -> float | None:
        """When it stops waiting; None where it does not wait, or not for a time."""
        return self._ends if math.isfinite(self._ends) else None

    def receive(self, topic: str, data: bytes, now: float) -> bool:
        """Take a message from a topic of manifests. What is not this coordinator's own is ignored. Returns whether it
        is older than one that came before: it has taken that one's place at the broker.
        """
        task = topic.rsplit("/", 1)[-1]
        if topic != topics.manifest(self._fleet, task):
            return False
        found = self._read(task, topic, data)
        if task not in self._checked:
            if found is not None:
                self._seen.setdefault(task, found)
            if math.isfinite(self._ends):
                self._ends = min(max(self._ends, now + QUIET_SECONDS), self._latest_end)
        return found is not None and self._is_older_than_before(task, found)

    def _read(self, task: str, topic: str, data: bytes) -> Manifest | None:
        try:
            envelope = read_envelope(data, MANIFEST.max_bytes)
            envelope.verify(self._keys.get(envelope.key_id, self._newest), topic)
            return decode_payload(envelope.payload, Manifest)
        except ProtocolError as error:
            if task not in self._checked:
                logger.warning(log_line("manifest_ignored", task=task, error=error, remedy="see who may publish there"))
            return None

    def _is_older_than_before(self, task: str, found: Manifest) -> bool:
        newest = self._newest_heard.setdefault(task, found)
        if _order(found) > _order(newest):
            self._newest_heard[task] = found
        return _order(found) < _order(newest)

    def settle(self, tasks: Set[str], own: Callable[[], Mapping[str, Manifest]], now: float) -> None:
        """Begin a new generation of each of the `tasks` that is behind what has come; `own` says how they are.

        Raises:
            JournalUnavailableError: call again.
        """
        if news := self._seen.keys() & tasks:
            manifests = own()
            self._say_where_shards_are_left_out()
            for task in news:
                if is_ahead(self._seen[task], manifests[task]):
                    self._renew(task, self._seen[task], manifests[task])
                self._checked.add(task)
                del self._seen[task]
        if now >= self._ends or (tasks and self._checked >= tasks):
            self._ends = -math.inf

    def _say_where_shards_are_left_out(self) -> None:
        named = {shard for found in self._seen.values() for shard in found.shards}
        if named and not self._shards:
            logger.warning(
                log_line(
                    "shards_left_out",
                    named_before=",".join(sorted(named)),
                    remedy="devices stay where they are, in shards that nobody may serve: name those that stay as"
                    " shards in coordinator.toml, also where there is one",
                )
            )

    def _renew(self, task: str, found: Manifest, own: Manifest) -> None:
        self._is_older()
        try:
            stored = self._registry.renew_behind(task, found.generation)
        except ConfigurationError as error:
            logger.error(log_line("generation_not_begun", task=task, error=error))
            return
        if stored is None:  # another shard's process has begun it meanwhile
            return
        logger.warning(
            log_line(
                "generation_begun",
                task=task,
                generation=stored.generation,
                version=own.version,
                devices_know_generation=found.generation,
                devices_know_version=found.version,
                reason="the database was restored or made anew: it lacks what devices have heard of",
                remedy="none: devices follow this database and keep their samples; versions it lacks are lost",
            )
        )


def is_ahead(found: Manifest, own: Manifest) -> bool:
    """Whether devices that know `found` would not follow `own`, though it is not the same."""
    if _order(found) != _order(own):
        return _order(found) > _order(own)
    return (found.bundle, found.weights, found.removed) != (own.bundle, own.weights, own.removed)


def _order(manifest: Manifest) -> tuple[int, int]:
    """Devices follow the highest."""
    return manifest.generation, manifest.version
