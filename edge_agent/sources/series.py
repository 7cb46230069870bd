"""The series of named readings on one device: each task has one, or one for each name that its sources give. Pure.

Those that agent.toml names are always kept. Programs at the sample socket may name others; what there is room for is
shared evenly by their accounts, so that none takes it from another.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from edge_agent.preparation.preparation import Preparation, PreparationState, SeriesStatus
from edge_agent.preparation.refusal import ReadingRefusedError
from fleet_protocol.configuration import one_line
from fleet_protocol.reading_plan import ReadingPlan
from fleet_protocol.task_description import TaskDescription

SERIES_SEPARATOR = "/"
"""Between a task's name and that of a series."""

MAX_SERIES = 32
"""That programs name, over all tasks and accounts."""
MAX_SERIES_CHARACTERS = 64
"""Of a name."""


SeriesName = Annotated[str, one_line(MAX_SERIES_CHARACTERS, least=0)]


@dataclass(slots=True)
class _KeptSeries:
    """`account` has named it, empty where it was agent.toml or is not known; `is_used` since the agent's start."""

    preparation: Preparation
    account: str = ""
    is_used: bool = False


class SeriesOfReadings:
    """Each follows its task's plan, and begins again with another one. `states` are of the agent's last run, `own` the
    keys of the series that agent.toml names (`key_of`). `made_room` is called with the key of one that an account has
    lost to another.
    """

    def __init__(
        self,
        describe: Callable[[str], TaskDescription | None],
        states: Mapping[str, PreparationState] | None = None,
        own: Iterable[str] = (),
        *,
        made_room: Callable[[str, str], None] = lambda _key, _account: None,
    ) -> None:
        self._describe = describe
        self._own = frozenset(own)
        self._made_room = made_room
        self._kept = {
            key: _KeptSeries(Preparation(state.plan, state), state.named_by) for key, state in (states or {}).items()
        }
        """The one that was used longest ago is the first."""
        for key in list(self._named())[:-MAX_SERIES]:  # agent.toml named more in the last run
            del self._kept[key]

    @property
    def states(self) -> dict[str, PreparationState]:
        """What each keeps over a restart, by its key."""
        return {
            key: msgspec.structs.replace(kept.preparation.state, named_by=kept.account)
            for key, kept in self._kept.items()
        }

    @property
    def status(self) -> dict[str, SeriesStatus]:
        """How far each is, those included that have got no reading since the agent's start."""
        return {key: kept.preparation.status for key, kept in self._kept.items()}

    def of(self, task: str, name: str, account: str = "") -> Preparation:
        """The series of a task, asked for by a program of this account, or by none.

        Raises:
            ReadingRefusedError: the task has no named readings, or is not known yet; the name is too long, or the
                account has named too many.
        """
        if len(name) > MAX_SERIES_CHARACTERS:
            words = f"series has {len(name)} characters; at most {MAX_SERIES_CHARACTERS} are taken"
            raise ReadingRefusedError("not_a_sample", words)
        plan, key = self._plan(task), key_of(task, name)
        if key not in self._kept:
            if name and key not in self._own:
                self._make_room(account)
            self._kept[key] = _KeptSeries(Preparation(plan))
        kept = self._kept[key] = self._kept.pop(key)
        if kept.preparation.plan is not plan and kept.preparation.plan != plan:
            kept.preparation = Preparation(plan)
        kept.account = "" if key in self._own else kept.account or account
        kept.is_used = True
        return kept.preparation

    def _named(self) -> dict[str, _KeptSeries]:
        """Those that programs have named, or agent.toml once."""
        return {key: kept for key, kept in self._kept.items() if SERIES_SEPARATOR in key and key not in self._own}

    def _make_room(self, account: str) -> None:
        """For one series more of an account: in the place of its own or nobody's of an earlier run, or of the account
        that has most if that has more than this one would have.
        """
        named = self._named()
        if len(named) < MAX_SERIES:
            return
        for key, kept in named.items():
            if not kept.is_used and kept.account in {"", account}:
                del self._kept[key]
                return
        counts = Counter(kept.account for kept in named.values())
        richest, most = counts.most_common(1)[0]
        if most <= counts[account] + 1:
            words = f"{account or 'agent.toml'} has named {counts[account]} of the {MAX_SERIES} series that are kept"
            raise ReadingRefusedError("too_many", f"{words}, its share; name fewer, and restart the agent")
        lost = next(key for key, kept in named.items() if kept.account == richest)
        del self._kept[lost]
        self._made_room(lost, richest)

    def _plan(self, task: str) -> ReadingPlan:
        description = self._describe(task)
        if description is None:
            raise ReadingRefusedError(
                "task_unknown", f"the description of {task} has not come yet; readings count from when it is here"
            )
        if description.readings is None:
            raise ReadingRefusedError("not_a_sample", f"{task} takes no named readings; give inputs")
        return description.readings


def key_of(task: str, name: str) -> str:
    """What a series of a task is called: by the task alone where it has no name."""
    return f"{task}{SERIES_SEPARATOR}{name}" if name else task
