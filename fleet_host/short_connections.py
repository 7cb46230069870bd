"""Whether connections that end soon are no accident. Pure."""

SHORT_SECONDS = 30.0
SHORT_ONES_THAT_SHOW = 4
"""So many connections in a row that the broker has agreed to, and that were shorter, are no accident. One more than
show that a publication ends them (`fleet_host.publication_limit`), which is said first."""


class ShortConnections:
    """Counts them; `in_a_row` is how many there were without a longer one or a failed attempt in between."""

    __slots__ = ("in_a_row",)

    def __init__(self) -> None:
        self.in_a_row = 0

    def ended(self, lasted_seconds: float) -> bool:
        """One is over, or an attempt, which lasted below 0 seconds; returns whether so many are no accident."""
        self.in_a_row = self.in_a_row + 1 if 0 <= lasted_seconds < SHORT_SECONDS else 0
        return self.in_a_row >= SHORT_ONES_THAT_SHOW
