"""How values are distributed over bins: counts, histograms, labels, and each round of quantiles. Pure.

`edges` divide all numbers into one bin more than there are edges; none makes the one bin of a count. A device's samples
count together as many as there are, at most `samples_per_device`, and are spread over the bins like its values. With
`epsilon` the device draws one of its values and answers for that alone (`randomised_response`): answer 0 is that it has
none, answer n + 1 bin n.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

from fleet_protocol.analytics.draws import Draws
from fleet_protocol.analytics.randomised_response import respond
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import AnalyticsReport, Query

ROUNDING = 1e-6
"""By which a sum of shares may be more than it should."""


def answer(query: Query, values: Sequence[float], draws: Draws) -> tuple[float, ...]:
    """What a device with these values sends."""
    bins = len(query.edges) + 1
    if query.epsilon:
        true = 1 + bisect_right(query.edges, values[draws.randrange(len(values))]) if values else 0
        return (float(respond(true, bins + 1, query.epsilon_of_round, draws)),)
    counts = [0] * bins
    for value in values:
        counts[bisect_right(query.edges, value)] += 1
    weight = min(len(values), query.samples_per_device) / max(len(values), 1)
    return tuple(count * weight for count in counts)


def check(query: Query, report: AnalyticsReport) -> None:
    """Refuse what no device's values can be.

    Raises:
        ProtocolError: with what is wrong.
    """
    bins = len(query.edges) + 1
    numbers = report.numbers
    if query.epsilon:
        if len(numbers) != 1 or not 0 <= numbers[0] <= bins or numbers[0] % 1:
            raise ProtocolError(Reason.OUT_OF_BOUNDS, f"an answer is one whole number from 0 to {bins}")
        return
    if len(numbers) != bins:
        raise ProtocolError(Reason.WRONG_SHAPE, f"{len(numbers)} numbers for {bins} bins")
    most = query.samples_per_device * (1 + ROUNDING)
    # Each alone first: the sum of numbers near the end of float64 can't be told.
    if min(numbers) < 0 or max(numbers) > most or math.fsum(numbers) > most:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"bins of {min(numbers):g} to {max(numbers):g}; one device may count for 0 to {query.samples_per_device}"
            " in all of them together",
        )
