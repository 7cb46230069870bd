"""What operators are shown of a journal: counts and summaries, which nothing is decided by."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, Row, func, select

from broker_coordinator.aggregation.harm import Tempering
from broker_coordinator.aggregation.means import mean_of
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.records import (
    Collapse,
    Evaluation,
    PayloadSetAside,
    VersionSummary,
    declared_loss,
    declared_noise,
)
from broker_coordinator.storage.schema import (
    FACTS,
    WAITING,
    evaluations,
    payloads,
    refused_payloads,
    rejections,
    versions,
)
from broker_coordinator.storage.standing import last_position_in
from broker_coordinator.storage.task_conditions import of_bundle, set_aside_of, trained_from_first, updates_of
from broker_coordinator.storage.task_history import still_with_forgotten
from fleet_protocol.errors import Reason
from fleet_protocol.limits import MAX_SEQUENCE


class Overview:
    """Reads a coordinator's database. Every method raises JournalUnavailableError where the database fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def version_summaries(self, task: str, count: int, *, before: int = MAX_SEQUENCE) -> list[VersionSummary]:
        """The last `count` versions below `before`, oldest first, with what their updates say."""
        query = select(
            versions.c.number,
            versions.c.weights_hash,
            versions.c.restored,
            versions.c.weights.is_not(None).label("kept"),
            versions.c.step,
            versions.c.given,
        )
        query = query.where(versions.c.task == task, versions.c.number < before)
        query = query.order_by(versions.c.number.desc()).limit(count)
        found = self.evaluations(task)
        with reading(self._engine) as connection:
            rows = list(reversed(connection.execute(query).all()))
            first, last = (rows[0].number, rows[-1].number) if rows else (0, -1)
            held = select(payloads.c.kind, payloads.c.aggregate, payloads.c.staleness, FACTS)
            held = held.where(*updates_of(task), payloads.c.aggregate.between(first, last))
            updates: dict[int, list[Row[Any]]] = {}
            for row in connection.execute(held):
                updates.setdefault(row.aggregate, []).append(row)
        still = still_with_forgotten(self._engine, task, [row.number for row in rows])
        return [
            _summary(row, updates.get(row.number, []), found.get(row.number), still.get(row.number, ())) for row in rows
        ]

    def last_collapse(self, task: str) -> Collapse | None:
        """The last one of the task's bundle; None where training has not collapsed, or was published anew since."""
        before = versions.alias()
        is_next = (before.c.task == versions.c.task) & (before.c.number == versions.c.number - 1)
        query = select(versions.c.number, versions.c.restored, versions.c.step)
        query = query.select_from(versions.join(before, is_next)).where(*of_bundle(task))
        query = query.where(versions.c.restored.is_not(None), versions.c.step < before.c.step)
        with reading(self._engine) as connection:
            row = connection.execute(query.order_by(versions.c.number.desc()).limit(1)).first()
            return Collapse(row.number, row.restored, row.step) if row else None

    def newest_clip(self, task: str) -> float | None:
        """That of the newest version, where it follows the norms of updates and one has been made."""
        query = select(versions.c.clip).where(versions.c.task == task).order_by(versions.c.number.desc()).limit(1)
        with reading(self._engine) as connection:
            found: float | None = connection.scalar(query)
            return found

    def tempering(self, task: str) -> Tempering | None:
        """The last one, as the newest version has it; None where devices were never harmed."""
        newest = select(versions.c.tempers_since, versions.c.tempers_until, versions.c.tempers_not_until).where(
            versions.c.task == task
        )
        with reading(self._engine) as connection:
            row = connection.execute(newest.order_by(versions.c.number.desc()).limit(1)).first()
        return None if row is None or row.tempers_since is None else Tempering(*row)

    def evaluations(self, task: str) -> dict[int, Evaluation]:
        """What is known of versions on held-out samples, by version."""
        query = select(evaluations.c.version, evaluations.c.samples, evaluations.c.loss, evaluations.c.accuracy)
        with reading(self._engine) as connection:
            rows = connection.execute(query.where(evaluations.c.task == task).order_by(evaluations.c.version))
            return {row.version: Evaluation(**row._mapping) for row in rows}

    def update_counts(self, task: str) -> tuple[int, int]:
        """How many updates of a task were accepted, and how many of them wait for the next version."""
        query = select(func.count(), func.count().filter(WAITING)).where(*updates_of(task))
        with reading(self._engine) as connection:
            accepted, waiting = connection.execute(query).one()
            return accepted, waiting

    def most_updates_of_a_device(self, task: str) -> int:
        """How many updates of a task's present bundle were accepted of the device that sent most."""
        counted = select(func.count().label("number")).where(*updates_of(task), trained_from_first(task))
        counts = counted.group_by(payloads.c.device).subquery()
        with reading(self._engine) as connection:
            return connection.scalar(select(func.max(counts.c.number))) or 0

    def noise_of_devices(self, task: str) -> dict[str, Counter[float | None]]:
        """By device, how many of its accepted updates of a task's present bundle say which noise; None: the task's."""
        query = select(payloads.c.device, FACTS).where(*updates_of(task), trained_from_first(task))
        said: dict[str, Counter[float | None]] = defaultdict(Counter)
        with reading(self._engine) as connection:
            for row in connection.execute(query):
                said[row.device][declared_noise(row.facts)] += 1
        return said

    def last_outcomes(self, task: str, count: int) -> tuple[int, dict[Reason, int]]:
        """Of the last `count` outcomes in the journal: how many payloads of a task were accepted, and how many of any
        task were refused, by reason.
        """
        with reading(self._engine) as connection:
            after = last_position_in(connection) - count
            accepted = select(func.count()).where(payloads.c.task == task, payloads.c.position > after)
            refused = select(refused_payloads.c.reason, func.count().label("number"))
            refused = refused.where(refused_payloads.c.position > after).group_by(refused_payloads.c.reason)
            counts = {Reason(row.reason): row.number for row in connection.execute(refused)}
            return connection.scalar(accepted) or 0, counts

    def set_aside_count(self, task: str) -> int:
        """How many payloads of a task, of any kind, are set aside."""
        with reading(self._engine) as connection:
            return connection.scalar(select(func.count()).where(*set_aside_of(task))) or 0

    def payloads_set_aside(self, task: str, count: int) -> list[PayloadSetAside]:
        """The last `count` payloads of a task that are set aside, oldest first."""
        reason = (payloads.c.set_aside + func.coalesce(": " + payloads.c.suspicion, "")).label("reason")
        columns = (payloads.c.device, payloads.c.sequence, payloads.c.kind, reason)
        query = select(*columns).where(*set_aside_of(task)).order_by(payloads.c.position.desc()).limit(count)
        with reading(self._engine) as connection:
            return [PayloadSetAside(**row._mapping) for row in reversed(connection.execute(query).all())]

    def accepted_counts(self, device: str) -> dict[str, int]:
        """How many payloads of a device were accepted, by task."""
        query = select(payloads.c.task, func.count().label("number")).where(payloads.c.device == device)
        with reading(self._engine) as connection:
            return {row.task: row.number for row in connection.execute(query.group_by(payloads.c.task))}

    def refused_invitations(self) -> int:
        """How many enrolments were refused for the invitation that they showed, whatever name they were for."""
        refused = select(func.sum(rejections.c.count)).where(rejections.c.reason == Reason.BAD_INVITATION.value)
        with reading(self._engine) as connection:
            return int(connection.scalar(refused) or 0)

    def rejections_of(self, device: str) -> dict[Reason, int]:
        """How many of a device's own messages were refused, by reason; of "", those that prove no device."""
        query = select(rejections.c.reason, rejections.c.count).where(rejections.c.device == device)
        with reading(self._engine) as connection:
            return {Reason(reason): count for reason, count in connection.execute(query)}


def _summary(
    row: Row[Any], updates: Sequence[Row[Any]], evaluation: Evaluation | None, with_forgotten: tuple[str, ...]
) -> VersionSummary:
    losses = [loss for update in updates if (loss := declared_loss(update.kind, update.facts)) is not None]
    return VersionSummary(
        row.number,
        row.weights_hash,
        row.restored,
        bool(row.kept),
        row.step,
        len(updates),
        mean_of(losses) if losses else None,
        mean_of(update.staleness for update in updates) if updates else None,
        evaluation,
        row.given,
        with_forgotten,
    )
