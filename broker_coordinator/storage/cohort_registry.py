"""Cohorts of masked updates. Each step of one is a transaction: whoever is killed goes on with the last.

open      takes updates
closed    takes none: helpers say which of its updates they can use
agreed    `members` are committed: of this cohort, helpers are asked about this set or none
summed    its version is committed, in the same transaction
void      its updates are set aside, in the same transaction: devices take them back
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.change_counters import COHORTS, TASKS, change_counters_in, count_up
from broker_coordinator.storage.database import DatabaseSetBackError, reading, writing
from broker_coordinator.storage.journal import TasksChangedError
from broker_coordinator.storage.schema import FACTS, WAITING, cohorts, payloads, versions
from broker_coordinator.storage.task_conditions import newest_number_in
from fleet_protocol.kinds import MASKED_UPDATE, Signed, decode_payload, encode_payload
from secure_aggregation.coordinator import OpenCohort
from secure_aggregation.messages import CohortManifest, CohortSet
from secure_aggregation.signatures import read_unverified


class CohortState(StrEnum):
    """What becomes of a cohort, in this order; see above."""

    OPEN = "open"
    CLOSED = "closed"
    AGREED = "agreed"
    SUMMED = "summed"
    VOID = "void"


LIVE = (CohortState.OPEN, CohortState.CLOSED, CohortState.AGREED)
"""Of a task, one cohort at most."""


@dataclass(frozen=True, slots=True)
class StoredCohort:
    """A cohort as it is stored; `members` is the set that helpers are asked about, None before it is agreed. `opened`
    is in seconds since 1970, None where an earlier release opened it.
    """

    task: str
    number: int
    state: CohortState
    cohort: OpenCohort
    manifest: Signed
    members: tuple[Signed, CohortSet] | None = None
    reason: str = ""
    version: int | None = None
    opened: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A payload whose cohort is settled: its device, and the digest of its envelope."""

    device: str
    digest: bytes


class CohortRegistry:
    """Every method raises JournalUnavailableError where the database fails; nothing has changed then."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def live(self, task: str) -> StoredCohort | None:
        """The one that is neither summed nor void."""
        with reading(self._engine) as connection:
            row = connection.execute(select(cohorts).where(cohorts.c.task == task, cohorts.c.state.in_(LIVE))).first()
            return None if row is None else _stored(row)

    def last(self, task: str, count: int) -> list[StoredCohort]:
        """The last ones, newest first."""
        of_task = select(cohorts).where(cohorts.c.task == task).order_by(cohorts.c.number.desc()).limit(count)
        with reading(self._engine) as connection:
            return [_stored(row) for row in connection.execute(of_task)]

    def open_cohorts(self) -> dict[str, OpenCohort]:
        """Those that take updates, by task."""
        with reading(self._engine) as connection:
            found = connection.execute(select(cohorts).where(cohorts.c.state == CohortState.OPEN))
            return {row.task: _stored(row).cohort for row in found}

    def open(self, task: str, name: bytes, manifest: Signed, opened: int) -> StoredCohort:
        """Let a cohort take updates; there must be no live one of the task. `opened` is in seconds since 1970."""
        with writing(self._engine) as connection:
            last = connection.scalar(select(func.max(cohorts.c.number)).where(cohorts.c.task == task)) or 0
            values = {
                "name": name,
                "task": task,
                "number": last + 1,
                "state": CohortState.OPEN.value,
                "manifest": encode_payload(manifest),
                "reason": "",
                "opened": opened,
            }
            connection.execute(insert(cohorts).values(values))
            count_up(connection, COHORTS)
            return _stored(connection.execute(select(cohorts).where(cohorts.c.name == name)).one())

    def close(self, cohort: StoredCohort) -> None:
        """Let it take no more."""
        self._set(cohort, state=CohortState.CLOSED.value)

    def agree(self, cohort: StoredCohort, members: Signed) -> None:
        """Commit the set, before any helper speaks for it."""
        self._set(cohort, state=CohortState.AGREED.value, members=encode_payload(members))

    def void(self, cohort: StoredCohort, reason: str) -> list[Settled]:
        """Settle that nothing comes of it, nor of any update of the task that waits. Returns these, and those of its
        own updates that were set aside before, as where the task was published anew: their devices have not heard.
        """
        with writing(self._engine) as connection:
            self._change(connection, cohort, state=CohortState.VOID.value, reason=reason)
            set_aside = _settled(
                connection,
                payloads.c.task == cohort.task,
                payloads.c.kind == MASKED_UPDATE.number,
                payloads.c.aggregate.is_(None),
                payloads.c.set_aside.is_not(None),
                FACTS.element.contains(cohort.cohort.name.hex(), autoescape=True),
            )
            return [*set_aside, *_let_go(connection, cohort.task, reason)]

    def let_go(self, task: str, positions: Sequence[int], reason: str) -> list[Settled]:
        """Settle that these updates, which wait, count in no cohort."""
        with writing(self._engine) as connection:
            return _let_go(connection, task, reason, positions)

    def add_version(
        self,
        cohort: StoredCohort,
        version: Version,
        positions: Sequence[int],
        masks: bytes,
        *,
        left_out: str,
        tasks_counter: int,
    ) -> tuple[list[Settled], list[Settled]]:
        """Commit the version that a set has made, of the payloads at `positions`; whatever else waits is let go, as
        `left_out` says. Returns which payloads count, and which do not.

        Raises:
            TasksChangedError, DatabaseSetBackError: as `Journal.add_version`; nothing was committed.
        """
        task = version.task
        with writing(self._engine) as connection:
            if change_counters_in(connection).get(TASKS, 0) != tasks_counter:
                raise TasksChangedError
            if (newest := newest_number_in(connection, task)) != version.number - 1:
                raise DatabaseSetBackError(f"version {newest} of {task} is the newest; {version.number} was made")
            connection.execute(insert(versions).values(asdict(version)))
            summed = CohortState.SUMMED.value
            self._change(connection, cohort, state=summed, masks=masks, version=version.number)
            members = (payloads.c.position.in_(positions), WAITING)
            held = _settled(connection, *members)
            if len(held) != len(positions):
                raise RuntimeError(
                    f"version {version.number} of {task} should hold {len(positions)} payloads, the journal has"
                    f" {len(held)}: is another coordinator using this database?"
                )
            connection.execute(update(payloads).where(*members).values(aggregate=version.number))
            return held, _let_go(connection, task, left_out)

    def _set(self, cohort: StoredCohort, **values: object) -> None:
        with writing(self._engine) as connection:
            self._change(connection, cohort, **values)

    def _change(self, connection: Connection, cohort: StoredCohort, **values: object) -> None:
        same = (cohorts.c.name == cohort.cohort.name, cohorts.c.state == cohort.state.value)
        if not connection.execute(update(cohorts).where(*same).values(values)).rowcount:
            raise TasksChangedError  # it was removed with its task
        count_up(connection, COHORTS)


def _let_go(connection: Connection, task: str, reason: str, positions: Sequence[int] | None = None) -> list[Settled]:
    chosen = [payloads.c.task == task, payloads.c.kind == MASKED_UPDATE.number, WAITING]
    if positions is not None:
        chosen.append(payloads.c.position.in_(positions))
    found = _settled(connection, *chosen)
    connection.execute(update(payloads).where(*chosen).values(set_aside=reason))
    return found


def _settled(connection: Connection, *conditions: object) -> list[Settled]:
    found = connection.execute(select(payloads.c.device, payloads.c.digest).where(*conditions))  # type: ignore[arg-type]
    return [Settled(row.device, row.digest) for row in found]


def _stored(row: Row[tuple[object, ...]]) -> StoredCohort:
    fields = row._mapping
    manifest = decode_payload(fields["manifest"], Signed)
    members = decode_payload(fields["members"], Signed) if fields["members"] else None
    return StoredCohort(
        fields["task"],
        fields["number"],
        CohortState(fields["state"]),
        OpenCohort(read_unverified(manifest, CohortManifest), fields["name"]),
        manifest,
        (members, read_unverified(members, CohortSet)) if members else None,
        fields["reason"],
        fields["version"],
        fields["opened"],
    )
