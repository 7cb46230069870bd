"""What the owner of a device lets a fleet ask about its samples: settings. Pure."""

from typing import Annotated

import msgspec

from fleet_protocol.analytics.fields import check_field_name
from fleet_protocol.configuration import Name, PositiveInt
from fleet_protocol.limits import MAX_EPSILON, MAX_FIELD_CHARACTERS

MAX_QUERIES_PER_DAY = 100
MAX_BUDGET_DAYS = 366

Epsilon = Annotated[float, msgspec.Meta(ge=0, le=MAX_EPSILON)]
FieldText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FIELD_CHARACTERS)]


class AskableField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field that queries of a task may be about, and may have in their filters."""

    task: Name
    """The task's name."""
    field: FieldText
    """`label`, `input[3]`, `reading.NAME`, `received_at` or `text.NAME`; `input` stands for all of its values."""
    largest_epsilon: Epsilon = 1.0
    """A query may cost at most this. 0 allows none with noise."""
    exact: bool = False
    """Answer without noise too, and for distinct values and frequent words. Whoever runs the coordinator then sees what
    is true of this device, and so can whoever is shown results from before and after its answer."""

    def __post_init__(self) -> None:
        """Refuse what names no field; raises ValueError."""
        check_field_name(self.field)


class AnalyticsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the fleet may ask about this device's samples (docs/analytics.md); left out, nothing."""

    fields: list[AskableField] = []
    epsilon_budget: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 4.0
    """All answers of `budget_days` together cost at most this. What costs more is refused."""
    budget_days: Annotated[int, msgspec.Meta(ge=1, le=MAX_BUDGET_DAYS)] = 30
    """Days after which what an answer cost is forgotten. A device that does not know the time forgets nothing."""
    queries_per_day: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUERIES_PER_DAY)] = 4
    """More are refused."""
    minimum_devices: PositiveInt = 10
    """A query that could be shown with fewer devices in it is refused."""
